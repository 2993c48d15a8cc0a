from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite
from robusteval.schema.cells import EvalCell
from robusteval.schema.source import SourceError

SUITE = """\
name: shifted
version: 1
summary: A suite whose other half is not another domain.
train:
  data: digits
  domains: [upright]
  architecture: small-cnn
methods:
  - method: erm
evaluate:
  id: {robust_examples: 10}
  ood:
    robust_examples: 5
OOD
  threats:
    - {epsilon: 0.1, attacks: [fgsm]}
"""


def suite(folder: Path, *lines: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(SUITE.replace("OOD", "\n".join(f"    {line}" for line in lines)))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(SourceError) as error:
        load_suite(path)
    return [str(problem) for problem in error.value.problems]


def test_shifts_become_domains_of_the_in_distribution_test_examples(tmp_path: Path) -> None:
    expansion = expand(load_suite(suite(tmp_path, "shifts: [{name: contrast, severities: [2, 5]}]")))
    assert expansion.stored.ood_domains == ("contrast-2", "contrast-5")
    cells = {item.role: item.cell for item in expansion.cells if isinstance(item.cell, EvalCell)}
    clean, shifted, attacked = cells["a_id"].data, cells["a_ood"].data, cells["r_ood@0"].data
    assert shifted.n == 2 * clean.n
    assert attacked.n == 2 * 5
    assert shifted.dataset.params["of"] == clean.dataset.model_dump(mode="json")


def test_another_dataset_gives_its_domains(tmp_path: Path) -> None:
    for index in range(10):
        folder = tmp_path / "pens" / "felt" / str(index)
        folder.mkdir(parents=True)
        for position in range(9):
            colour = np.full((16, 16, 3), 20 * index + position, dtype=np.uint8)
            Image.fromarray(colour).save(folder / f"{position}.png")
    data = "data: {name: image-folder, params: {path: ./pens, size: 16, cache: ./cache}}"
    path = suite(tmp_path, data)
    path.write_text(path.read_text().replace("robust_examples: 5", "robust_examples: 1"))
    expansion = expand(load_suite(path))
    assert expansion.stored.ood_domains == ("felt",)
    assert {item.cell.data.dataset.name for item in expansion.cells if item.role == "a_ood"} == {"image-folder"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["shifts: [contrst]"], "unknown shift 'contrst'; did you mean 'contrast'"),
        (["shifts: [contrast]", "domains: [rotated]"], "both 'domains' and 'shifts'"),
        (["shifts: [contrast]", "data: digits"], "both 'data' and 'shifts'"),
        (["shifts: []"], "at least 1"),
        (["shifts: [{name: contrast, severities: [6]}]"], "severity"),
        (["shifts: [{name: contrast, severity: 3}]"], "unknown key 'severity'"),
        (["shifts: [contrast, {name: contrast, severities: [1]}]"], "listed twice"),
        (["data: digitz"], "unknown dataset 'digitz'; did you mean 'digits'?"),
        (["data: {name: digits}", "domains: [rotatted]"], "unknown domain 'rotatted'; did you mean 'rotated'"),
    ],
)
def test_mistakes_are_one_line_with_the_place(tmp_path: Path, lines: list[str], message: str) -> None:
    (problem,) = problems(suite(tmp_path, *lines))
    assert message in problem


def test_data_with_other_images_is_refused(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        folder = tmp_path / "pets" / "photo" / label
        folder.mkdir(parents=True)
        for position in range(9):
            Image.fromarray(np.full((32, 32, 3), position, dtype=np.uint8)).save(folder / f"{position}.png")
    for size, message in ((32, "give both the same size"), (16, "have other classes: they differ in '0', '1'")):
        data = f"data: {{name: image-folder, params: {{path: ./pets, size: {size}, cache: ./cache}}}}"
        path = suite(tmp_path, data)
        path.write_text(path.read_text().replace("    robust_examples: 5\n", ""))
        assert message in problems(path)[0]
