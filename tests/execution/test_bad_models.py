"""A model that cannot be attacked fails its own cell, with the examples named, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robusteval.data.slices import make_slice, open_dataset
from robusteval.execution.cell import run_cell
from robusteval.execution.events import CellTask
from robusteval.models.build import build_classifier
from robusteval.models.checkpoints import save_checkpoint
from robusteval.planning.targets import resolve_architecture, resolve_evaluator
from robusteval.schema.cells import EvalCell, WeightsStart
from robusteval.schema.types import Component, Epsilon, ThreatModel
from robusteval.store.store import Store

DIGITS = Component(name="digits")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def stored_model(store: Store, *, broken: bool) -> WeightsStart:
    dataset = open_dataset(DIGITS)
    architecture = resolve_architecture(Component(name="small-cnn", params={"width": 4}))
    model = build_classifier(
        architecture, classes=10, input_shape=dataset.image_shape, mean=dataset.mean, std=dataset.std, seed=0
    )
    if broken:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
    return WeightsStart(weights=store.put_artefact(save_checkpoint(model, architecture, class_names=dataset.classes)))


def attacked(store: Store, model: WeightsStart):
    cell = EvalCell(
        model=model,
        data=make_slice(DIGITS, open_dataset(DIGITS), ("upright",), "test", 12),
        evaluator=resolve_evaluator("adversarial", {"attacks": ["fgsm"]}),
        protocol=1,
        threat=ThreatModel(epsilon=Epsilon("0.05")),
        seed=0,
    )
    summary = run_cell(CellTask(key=cell.key, cell=cell.model_dump_json()), store.uri, lambda fraction, what: None)
    return cell, summary


def test_only_the_cell_of_the_bad_model_fails_and_its_record_names_the_examples(store: Store) -> None:
    bad, failed = attacked(store, stored_model(store, broken=True))
    good, done = attacked(store, stored_model(store, broken=False))
    assert (failed.status, done.status) == ("failed", "ok")
    failure = store.get_failure(bad.key)
    assert failure is not None
    assert failure.failure is not None
    assert store.get(good.key).evaluation is not None
    named = failure.failure.message.split("example ")[1].split(" and ")[0].split(", ")
    assert len(named) == 5
    assert set(named) <= set(open_dataset(DIGITS).ids("upright", "test"))
    assert "and 7 more" in failure.failure.message
