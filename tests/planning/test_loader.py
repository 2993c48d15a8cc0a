from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robusteval.data import DATASETS
from robusteval.models.build import build_classifier
from robusteval.models.checkpoints import save_checkpoint
from robusteval.planning.loader import load_suite, read_spec
from robusteval.planning.names import packaged_suites
from robusteval.schema.errors import RobustevalError, UnknownNameError, UsageError
from robusteval.schema.source import SourceError
from robusteval.schema.types import Component

GOOD = """\
name: tiny
version: 1
summary: A suite.
seeds: [0, 1]
train:
  data: digits
  domains: [upright]
  architecture: small-cnn
methods:
  - method: erm
    params: {epochs: 2}
  - method: pgd-at
    label: robust
    params:
      epsilon: 0.1
      steps: 2
  - method: aft
    start: erm
evaluate:
  id:
    examples: 50
    robust_examples: 20
  ood:
    domains: [rotated, inverted]
  threats:
    - norm: linf
      epsilon: 8/255
      attacks:
        - pgd
        - {name: fgsm}
score:
  baseline: erm
"""


def load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    load_suite(path)


def test_a_right_suite_loads(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(GOOD)
    suite = load_suite(tmp_path / "s.yaml")
    assert [row.row for row in suite.spec.methods] == ["erm", "robust", "aft"]
    assert suite.dataset.image_shape == (3, 16, 16)
    assert suite.weights == {}


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        # keys and types
        ("name: tiny", "nmae: tiny", 1, "unknown key 'nmae'; did you mean 'name'?"),
        ("version: 1", "version: one", 2, "version must be a whole number, but is 'one'"),
        ("version: 1", "version: 1.5", 2, "must be a whole number"),
        ("version: 1", f"version: {2**53}", 2, "must be at most 9007199254740991"),
        ("seeds: [0, 1]", f"seeds: [0, {2**53}]", 4, "must be at most 9007199254740991"),
        ("summary: A suite.", 'summary: "a \\ud800"', 3, "which no text or path may"),
        ("  data: digits", '  data: {name: image-folder, params: {path: "a\\0b"}}', 6, "which no text or path may"),
        ("  data: digits", "  data: {name: image-folder, params: {path: ~nobody-of-that-name/x}}", 6, "no such user"),
        (
            "  data: digits",
            f"  data: {{name: image-folder, params: {{path: {'x' * 5000}}}}}",
            6,
            "File name too long",
        ),
        ("start: erm", f"start: {'x' * 5000}/x.safetensors", 18, "File name too long"),
        ("params: {epochs: 2}", f"params: {{epochs: {2**53}}}", 11, "must be at most 9007199254740991"),
        ("params: {epochs: 2}", "params: {lr: true}", 11, "must be a number, but is True"),
        ("params: {epochs: 2}", 'params: {lr: "0.1"}', 11, "must be a number, but is '0.1'"),
        ("  baseline: erm", "  pareto: []", 32, "at least 1 item"),
        ("  baseline: erm", "  pareto: [a_id, a_id]", 32, "pareto lists 'a_id' twice"),
        ("version: 1", "version: 0", 2, "version must be greater than 0, but is 0"),
        ("version: 1", "version:", 2, "but is empty"),
        ("name: tiny", "name: ../../etc", 1, "letters, digits"),
        ("seeds: [0, 1]", "seeds: [0, -1]", 4, "seeds[1] must be at least 0"),
        ("seeds: [0, 1]", "seeds: [0, 0]", 4, "seed 0 is listed twice"),
        ("seeds: [0, 1]", "seeds: 3", 4, "seeds must be a list, but is 3"),
        ("seeds: [0, 1]", "seeds: []", 4, "at least 1"),
        ("  architecture: small-cnn", "  arch: small-cnn", 8, "did you mean 'architecture'"),
        ("summary: A suite.", "summary: A suite.\nsummary: Another.", 4, "duplicate key 'summary'"),
        ("    params: {epochs: 2}", "    params: {epochs: 2, epochs: 3}", 11, "duplicate key 'epochs'"),
        # names
        ("  - method: erm", "  - method: ermm", 10, "unknown method 'ermm'; did you mean 'erm'"),
        ("  data: digits", "  data: digit", 6, "unknown dataset 'digit'; did you mean 'digits'"),
        ("  architecture: small-cnn", "  architecture: smal-cnn", 8, "did you mean 'small-cnn'? (robusteval ls arch"),
        ("        - pgd", "        - pdg", 29, "unknown attack 'pdg'; did you mean 'pgd'"),
        ("{name: fgsm}", "{name: torchattacks/FGSMM}", 30, "FGSMM"),
        ("  domains: [upright]", "  domains: [uprigth]", 7, "unknown domain 'uprigth'; did you mean 'upright'"),
        ("  domains: [upright]", "  domains: [upright, upright]", 7, "listed twice"),
        ("[rotated, inverted]", "[rotated, invertd]", 24, "did you mean 'inverted'"),
        ("{epochs: 2}", "{augment: [flop]}", 11, "unknown augmentation 'flop'; did you mean 'flip'"),
        ("  baseline: erm", "  baseline: errm", 32, "did you mean 'erm'"),
        # parameters
        ("{epochs: 2}", "{epoch: 2}", 11, "unknown key 'epoch' in methods[0].params; did you mean 'epochs'"),
        ("{epochs: 2}", "{epochs: -2}", 11, "methods[0].params.epochs must be greater than 0"),
        ("{epochs: 2}", "{lr: .nan}", 11, "must be a finite number"),
        ("{epochs: 2}", "{lr: fast}", 11, "must be a number"),
        ("{epochs: 2}", "{optimizer: sdg}", 11, "must be 'sgd' or 'adam'"),
        ("      steps: 2", "      stps: 2", 16, "did you mean 'steps'"),
        ("{name: fgsm}", "{name: fgsm, params: {los: ce}}", 30, "did you mean 'loss'"),
        ("  architecture: small-cnn", "  architecture: {name: small-cnn, params: {width: 0}}", 8, "greater than 0"),
        # numbers
        ("epsilon: 8/255", "epsilon: 8/0", 27, "epsilon '8/0' divides by zero; write 8/255 or 0.03"),
        ("epsilon: 8/255", "epsilon: -8/255", 27, "is negative"),
        ("epsilon: 8/255", "epsilon: -0.1", 27, "is negative"),
        ("epsilon: 8/255", "epsilon: .nan", 27, "not a finite number"),
        ("epsilon: 8/255", "epsilon: 0", 27, "positive radius"),
        ("epsilon: 8/255", "epsilon: 8", 27, "more than the whole pixel range [0, 1]; 8 grey levels are 8/255"),
        ("epsilon: 8/255", "epsilon: [8, 255]", 27, "must be a number"),
        ("      epsilon: 8/255\n", "", 26, "norm linf needs 'epsilon', such as 8/255"),
        ("      epsilon: 8/255\n", "      rotation: 30\n", 26, "norm linf has no 'rotation'; its limits are 'epsilon'"),
        (
            "norm: linf",
            "norm: spatial",
            26,
            "norm spatial has no 'epsilon'; its limits are 'rotation' and 'translation'",
        ),
        ("norm: linf", "norm: l3", 26, "must be 'linf', 'l2', 'l1', 'spatial' or 'recolour'"),
        ("robust_examples: 20", "robust_examples: 60", 22, "more than examples, 50"),
        ("examples: 50", "examples: 5000", 21, "write at most 450"),
        ("[rotated, inverted]", "[rotated, upright]", 24, "is trained on"),
        # rows and starts
        ("    label: robust", "    label: erm", 13, "row 'erm' is on line 10 already"),
        ("    label: robust", "    label: a/b", 13, "letters, digits"),
        ("    start: erm", "    start: errm", 18, "unknown start row 'errm'; did you mean 'erm'"),
        ("    start: erm", "    start: aft", 18, "starts in a circle: aft -> aft"),
        ("    start: erm\n", "", 17, "method 'aft' needs a 'start'"),
        ("    start: erm", "    start: missing.safetensors", 18, "missing.safetensors: cannot read the checkpoint"),
        ("    start: erm", "    start: ../up/missing.pt", 18, "cannot read the checkpoint"),
    ],
)
def test_bad_input_is_one_line_that_names_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(SourceError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    (problem,) = caught.value.located()
    assert re.match(rf".*s\.yaml:{line}: ", problem), problem
    assert says in problem
    assert "\n" not in problem
    assert caught.value.exit_code == 2


def test_all_problems_of_a_file_are_found_at_once_in_its_order(tmp_path: Path) -> None:
    text = (
        GOOD.replace("{epochs: 2}", "{epoch: 2}")
        .replace("  data: digits", "  data: digitz")
        .replace("8/255", "8/0")
        .replace("start: erm", "start: errm")
        .replace("{name: fgsm}", "{name: fgmm}")
        .replace("version: 1", "version: x")
    )
    with pytest.raises(SourceError) as caught:
        load(tmp_path, text)
    lines = [int(found.group(1)) for problem in caught.value.located() if (found := re.search(r":(\d+): ", problem))]
    assert lines == [2, 6, 11, 18, 27]


def test_a_circle_of_starts_names_its_rows(tmp_path: Path) -> None:
    text = GOOD.replace("  - method: erm\n", "  - method: erm\n    start: aft\n")
    with pytest.raises(SourceError, match="starts in a circle") as caught:
        load(tmp_path, text)
    assert [problem.line for problem in caught.value.problems] == [11, 19]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "5\n"])
def test_what_is_no_map_is_no_suite(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"s\.yaml:1: a suite is a map"):
        load(tmp_path, text)


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    parts = {"classes": 10, "input_shape": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    model = build_classifier(Component(name="small-cnn"), seed=0, **parts)  # type: ignore[arg-type]
    return save_checkpoint(model, Component(name="small-cnn"), class_names=tuple("0123456789"))


def test_a_start_checkpoint_is_taken_relative_to_the_suite(tmp_path: Path, checkpoint: bytes) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "start.safetensors").write_bytes(checkpoint)
    (tmp_path / "s.yaml").write_text(GOOD.replace("start: erm", "start: deep/start.safetensors"))
    suite = load_suite(tmp_path / "s.yaml")
    assert suite.weights == {"deep/start.safetensors": tmp_path / "deep" / "start.safetensors"}


def _other(name: str, classes: int, side: int) -> bytes:
    component = Component(name=name)
    parts = {"classes": classes, "input_shape": (3, side, side), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return save_checkpoint(build_classifier(component, seed=0, **parts), component, class_names=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda good: _other("small-cnn", 7, 16), "7 classes"),
        (lambda good: _other("small-cnn", 10, 32), r"shape (3, 32, 32)"),
        (lambda good: _other("resnet20", 10, 16), "is a resnet20"),
        (lambda good: good[:100], "cut off inside its header"),
        (lambda good: b"\x80\x02}q\x00.", "pickle checkpoint"),
        (lambda good: b"PK\x03\x04" + bytes(100), "pickle checkpoint"),
        (lambda good: b"", "is empty"),
        (lambda good: b"<!DOCTYPE html>", "is a web page"),
    ],
)
def test_a_start_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, checkpoint: bytes, content: object, says: str
) -> None:
    (tmp_path / "start.safetensors").write_bytes(content(checkpoint))  # type: ignore[operator]
    with pytest.raises(SourceError) as caught:
        load(tmp_path, GOOD.replace("start: erm", "start: start.safetensors"))
    (problem,) = caught.value.located()
    assert re.match(r".*s\.yaml:18: ", problem)
    assert says in problem


def test_an_image_folder_is_taken_relative_to_the_suite(tmp_path: Path) -> None:
    text = GOOD.replace("  data: digits", "  data: {name: image-folder, params: {path: nowhere}}")
    with pytest.raises(SourceError, match=r"s\.yaml:6: ") as caught:
        load(tmp_path, text)
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_data_of_one_class_is_refused(tmp_path: Path) -> None:
    picture = tmp_path / "tree" / "upright" / "only" / "0.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(picture)
    text = GOOD.replace("  data: digits", "  data: {name: image-folder, params: {path: tree, cache: cache}}")
    with pytest.raises(SourceError) as caught:
        load(tmp_path, text)
    assert any(re.match(r".*s\.yaml:6: .*needs at least 2 classes", line) for line in caught.value.located())


def test_a_method_with_a_new_head_takes_a_start_of_other_classes_but_not_of_another_shape(tmp_path: Path) -> None:
    text = GOOD.replace("method: aft\n    start: erm", "method: lp-ft\n    start: start.safetensors")
    (tmp_path / "start.safetensors").write_bytes(_other("small-cnn", 7, 16))
    load(tmp_path, text)
    (tmp_path / "start.safetensors").write_bytes(_other("small-cnn", 7, 32))
    with pytest.raises(SourceError, match=r"shape \(3, 32, 32\)"):
        load(tmp_path, text)


ABSENT = ("is not there", "is the network reachable", "is not installed")
"""What the suites on published data say where that data, or the start weights, cannot be had."""


@pytest.mark.parametrize("name", sorted(packaged_suites()))
def test_every_packaged_suite_is_right_and_called_like_its_file(name: str) -> None:
    assert read_spec(name).name == name
    try:
        load_suite(name)
    except SourceError as error:
        wrong = [problem.text for problem in error.problems if not any(words in problem.text for words in ABSENT)]
        assert name not in ("digits", "smoke")
        assert wrong == []


def test_the_digits_suite_has_all_methods_and_shifts() -> None:
    spec = read_spec("digits")
    assert {row.method for row in spec.methods} == {"erm", "sam", "advstyle", "udim", "pgd-at", "aft", "rift", "lp-ft"}
    assert len(spec.seeds) == 2
    assert spec.train.data.name in DATASETS


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("digit", UnknownNameError, "did you mean 'digits'"),
        ("..", UsageError, "not a suite name"),
        ("", UsageError, "not a suite name"),
        ("a b", UsageError, "not a suite name"),
        ("../digits", SourceError, "no such file"),
        ("./digits.yaml", SourceError, "no such file"),
    ],
)
def test_a_name_that_means_no_suite_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, kind: type[RobustevalError], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=says):
        load_suite(name)


def test_a_file_beside_the_user_is_pointed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(GOOD)
    with pytest.raises(UnknownNameError, match=re.escape("give it as ./mine.yaml")):
        load_suite("mine")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, GOOD.count("\n") - 1), st.sampled_from(["", "  ", "x", "- ", "x: 1", "[", "? ", "'", "<<: 1"]))
def test_a_damaged_line_never_causes_more_than_one_line_errors(
    tmp_path_factory: pytest.TempPathFactory, number: int, damage: str
) -> None:
    lines = GOOD.splitlines()
    lines[number] = damage + lines[number][2:]
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_text("\n".join(lines))
    try:
        load_suite(path)
    except SourceError as error:
        assert error.located()
        for problem in error.located():
            assert re.fullmatch(rf"{re.escape(str(path))}:\d+: [^\n]+", problem)
