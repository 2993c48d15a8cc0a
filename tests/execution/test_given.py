"""Models that are measured and not trained, of several architectures in one suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusteval.data.slices import open_dataset
from robusteval.execution.events import SilentListener
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.models.build import build_classifier, resolve_architecture
from robusteval.models.checkpoints import save_checkpoint
from robusteval.planning.expand import expand
from robusteval.planning.expanded import Expansion
from robusteval.planning.loader import load_suite
from robusteval.planning.plan import make_plan
from robusteval.schema.cells import EvalCell, TrainCell
from robusteval.schema.digest import sha256_hex
from robusteval.schema.source import SourceError
from robusteval.schema.specs import MethodSpec
from robusteval.schema.types import Component
from robusteval.store.store import Store

SUITE = """\
name: measured
version: 1
summary: Two networks as they are.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods:
  - {method: given, label: narrow, start: narrow.safetensors}
  - {method: given, label: wide, start: wide.safetensors, architecture: {name: small-cnn, params: {width: 6}}}
evaluate:
  id: {examples: 12, robust_examples: 4}
  ood: {domains: [inverted], examples: 8, robust_examples: 4}
  threats: [{epsilon: 0.1, attacks: [{name: pgd, params: {steps: 2}}]}]
"""


def write_networks(folder: Path) -> dict[str, str]:
    data = open_dataset(Component(name="digits"))
    digests = {}
    for name, width in (("narrow", 4), ("wide", 6)):
        network = resolve_architecture(Component(name="small-cnn", params={"width": width}))
        model = build_classifier(
            network, classes=10, input_shape=data.image_shape, mean=data.mean, std=data.std, seed=width
        )
        blob = save_checkpoint(model, network, class_names=data.classes)
        (folder / f"{name}.safetensors").write_bytes(blob)
        digests[name] = sha256_hex(blob)
    return digests


def expanded(folder: Path, text: str = SUITE) -> Expansion:
    (folder / "s.yaml").write_text(text)
    return expand(load_suite(folder / "s.yaml"))


def refused(folder: Path, text: str) -> str:
    with pytest.raises(SourceError) as caught:
        expanded(folder, text)
    return "\n".join(caught.value.located())


def test_given_models_are_measured_with_their_own_weights_at_no_pass(tmp_path: Path) -> None:
    digests = write_networks(tmp_path)
    store = Store.open(tmp_path / "store")
    expansion = expanded(tmp_path)
    for path in expansion.weights.values():
        store.put_artefact(path.read_bytes())
    run_plan(make_plan(expansion, store.state), store, RunOptions(executor="serial"), SilentListener())
    for item in expansion.cells:
        record = store.get(item.key)
        assert record.status == "ok"
        if isinstance(item.cell, EvalCell):
            assert record.evaluation is not None
            continue
        assert record.training is not None
        assert record.training.weights == digests[item.label]
        assert record.training.selected_on == "given"
        assert (record.training.budget.forward, record.training.budget.backward) == (0, 0)


def test_a_given_row_names_no_training_example(tmp_path: Path) -> None:
    write_networks(tmp_path)
    cells = {item.label: item for item in expanded(tmp_path).cells if isinstance(item.cell, TrainCell)}
    assert [(item.cell.data.n, item.passes) for item in cells.values()] == [(0, 0), (0, 0)]
    assert cells["wide"].cell.architecture.params["width"] == 6  # type: ignore[union-attr]
    assert cells["narrow"].cell.architecture.params["width"] == 4  # type: ignore[union-attr]


def test_an_absent_architecture_leaves_no_trace_in_the_suite(tmp_path: Path) -> None:
    assert "architecture" not in MethodSpec(method="erm").model_dump()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (", start: narrow.safetensors", "", "needs a 'start'"),
        ("narrow.safetensors", "wide.safetensors", "make them the same"),
        ("start: wide.safetensors", "start: narrow", "row 'narrow' is a small-cnn"),
        ("label: narrow,", "label: narrow, params: {lr: 0.5},", "takes no parameters; remove lr"),
        ("width: 6", "width: 6, depth: 1", "unknown key 'depth'"),
    ],
)
def test_what_does_not_fit_is_said_before_the_run(tmp_path: Path, old: str, new: str, says: str) -> None:
    write_networks(tmp_path)
    assert says in refused(tmp_path, SUITE.replace(old, new, 1))
