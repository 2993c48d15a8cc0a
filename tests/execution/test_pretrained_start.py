"""A model trained from weights of others carries their licence and source, and so does one trained from it."""

from __future__ import annotations

from pathlib import Path

from robusteval.data.slices import make_slice, open_dataset
from robusteval.execution.work import train_cell
from robusteval.methods.resolve import resolve_method
from robusteval.models.build import build_classifier, resolve_architecture
from robusteval.models.checkpoint_info import inspect_checkpoint
from robusteval.models.checkpoints import save_checkpoint
from robusteval.schema.cells import TrainCell, WeightsStart
from robusteval.schema.types import Component
from robusteval.store.store import Store


def test_licence_and_source_are_handed_on(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    digits = Component(name="digits")
    data = open_dataset(digits)
    network = resolve_architecture(Component(name="small-cnn", params={"width": 4}))
    model = build_classifier(network, classes=10, input_shape=data.image_shape, mean=data.mean, std=data.std, seed=0)
    origin = {"licence": "BSD-2", "source": "a package"}
    weights = store.put_artefact(save_checkpoint(model, network, class_names=data.classes, extra=origin))
    for _ in range(2):
        cell = TrainCell(
            data=make_slice(digits, data, ("upright",), "train", 64),
            architecture=network,
            method=resolve_method("erm", {"epochs": 1, "batch_size": 64}),
            protocol=1,
            start=WeightsStart(weights=weights),
            seed=0,
        )
        result = train_cell(cell, store, "cpu", lambda fraction, what: None)
        assert result.diagnostics["pretrained"] == origin
        info = inspect_checkpoint(store.get_artefact(result.weights))
        assert {"licence": info.licence, "source": info.source} == origin
        assert result.weights != weights
        weights = result.weights
