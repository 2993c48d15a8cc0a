from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robusteval.data.protocols import load_protocol
from robusteval.planning.expand import expand
from robusteval.planning.loader import LoadedSuite, load_suite
from robusteval.schema.cells import TrainCell
from robusteval.schema.source import SourceError

DOMAINS = ("art", "cartoon", "photo")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for domain in DOMAINS:
        for label in ("cat", "dog"):
            folder = tmp_path / "pictures" / domain / label
            folder.mkdir(parents=True)
            for index in range(10):
                Image.fromarray(np.full((20, 20, 3), 20 * index, dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path


def suite(folder: Path, *rows: str, protocol: str = "udim-sdg", data: str = "", domains: str = "[photo]") -> Path:
    path = folder / "suite.yaml"
    written = "\n".join(f"  - {row}" for row in rows)
    path.write_text(
        f"name: under-protocol\nversion: 1\nsummary: A suite under a protocol.\nprotocol: {protocol}\n"
        "train:\n"
        f"  data: {{name: image-folder, params: {{path: ./pictures, cache: ./cache{data}}}}}\n"
        f"  domains: {domains}\n  architecture: small-cnn\n"
        f"methods:\n{written}\n"
        "evaluate:\n  threats:\n    - {epsilon: 0.1, attacks: [fgsm]}\n"
    )
    return path


def trained(loaded: LoadedSuite) -> dict[str, TrainCell]:
    return {item.label: item.cell for item in expand(loaded).cells if isinstance(item.cell, TrainCell)}


def test_the_protocol_fills_in_what_the_suite_leaves_out(tree: Path) -> None:
    loaded = load_suite(suite(tree, "method: erm", "{method: sam, params: {lr: 0.1}}", data=", size: 16"))
    cells = trained(loaded)
    method = load_protocol("udim-sdg").method
    for name in ("iterations", "evaluate_every", "batch_size", "optimizer", "weight_decay", "batch_norm"):
        assert cells["erm"].method.params[name] == method[name]
    assert cells["erm"].method.params["lr"] == method["lr"]
    assert cells["sam"].method.params["lr"] == 0.1


def test_the_split_and_the_scored_share_are_the_protocols(tree: Path) -> None:
    loaded = load_suite(suite(tree, "method: erm", data=", size: 16"))
    cell = trained(loaded)["erm"]
    assert cell.data.dataset.params["split"] == "domainbed"
    assert cell.data.dataset.params["sources"] == ["photo"]
    assert cell.data.n == 16
    scored = {item.role: item.cell.data.n for item in expand(loaded).cells if item.role != "train"}
    assert scored["a_ood"] == 2 * 16


def test_every_deviation_is_listed_and_nothing_else(tree: Path) -> None:
    loaded = load_suite(suite(tree, "{method: erm, params: {lr: 0.1, batch_size: 48}}", data=", size: 16"))
    assert loaded.protocol is not None
    assert loaded.protocol.digest == load_protocol("udim-sdg").digest
    assert loaded.protocol.deviations == (
        "data: size 16 (protocol: 224)",
        "1 seeds (protocol: 3)",
        "architecture small-cnn (protocol: torchvision ResNet-18, ImageNet, dropout 0.5)",
        "erm: lr 0.1 (protocol: 3e-05)",
    )
    assert expand(loaded).stored.protocol == loaded.protocol


def test_a_row_may_count_in_epochs_instead(tree: Path) -> None:
    loaded = load_suite(suite(tree, "{method: erm, params: {epochs: 2}}", data=", size: 16"))
    params = trained(loaded)["erm"].method.params
    assert params["epochs"] == 2
    assert params["iterations"] is None
    assert loaded.protocol is not None
    assert "erm: counted in epochs (protocol: 5001 iterations)" in loaded.protocol.deviations


def test_batches_grow_with_the_training_domains_where_the_protocol_counts_per_domain(tree: Path) -> None:
    path = suite(tree, "method: erm", protocol="domainbed-2020", data=", size: 16", domains="[art, photo]")
    assert trained(load_suite(path))["erm"].method.params["batch_size"] == 64


def test_a_wrong_name_is_one_line(tree: Path) -> None:
    with pytest.raises(SourceError) as error:
        load_suite(suite(tree, "method: erm", protocol="domainbed-2021", data=", size: 16"))
    (problem,) = error.value.problems
    assert problem.line == 4
    assert "unknown protocol 'domainbed-2021'; did you mean 'domainbed-2020'" in problem.text


def test_the_plan_knows_what_each_selection_rule_needs(tree: Path) -> None:
    path = suite(tree, "method: erm", protocol="domainbed-2020", data=", size: 16", domains="[art, photo]")
    stored = expand(load_suite(path)).stored
    assert stored.protocol is not None
    assert stored.protocol.runs == {
        "last": 180,
        "training-domain": 180,
        "oracle": 180,
        "leave-one-domain-out": 360,
    }


def test_the_other_weights_of_a_run_are_measured_under_shift(tree: Path) -> None:
    loaded = load_suite(suite(tree, "method: erm", "{method: sam, params: {select: last}}", data=", size: 16"))
    rows = {row.label: row.cells for row in expand(loaded).stored.rows}
    assert "a_ood:last" in rows["erm"] and "a_ood:training-domain" not in rows["erm"]
    assert "a_ood:training-domain" in rows["sam"] and "a_ood:last" not in rows["sam"]
