"""What the out-of-distribution half is measured on, where that is not the training dataset itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robusteval.planning import targets
from robusteval.schema.errors import DataError
from robusteval.schema.specs import OodSpec, TrainSpec
from robusteval.schema.types import Component

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset


@dataclass(frozen=True)
class OpenedData:
    """A dataset and what it was opened from."""

    component: Component
    dataset: Dataset[Any]


def open_ood(
    spec: OodSpec,
    train: TrainSpec,
    id_domains: tuple[str, ...],
    trained: Dataset[Any],
    open_dataset: Callable[[Component], Dataset[Any]],
) -> OpenedData | None:
    """Open the dataset of the out-of-distribution half.

    Args:
        spec: what the suite says of this half.
        train: what the models are trained on, with its paths resolved.
        id_domains: domains of the in-distribution half; shifts apply to their test examples.
        trained: the opened training dataset.
        open_dataset: opens a component.

    Returns:
        None where the half consists of other domains of the training dataset.

    Raises:
        DataError: classes or image size are not those of the training data.
        UsageError: a parameter of a shift or of the dataset is wrong.
    """
    if spec.shifts is not None:
        shifts = targets.expand_shifts(spec.shifts, min(trained.image_shape[1:]))
        params = {
            "of": train.data.model_dump(mode="json"),
            "domains": list(id_domains),
            "shifts": [one.model_dump(mode="json") for one in shifts],
        }
        component = Component(name="shifted", params=params)
        return OpenedData(component, open_dataset(component))
    if spec.data is None:
        return None
    dataset = open_dataset(spec.data)
    if dataset.image_shape != trained.image_shape:
        raise DataError(
            f"dataset {spec.data.name!r} has images of {_size(dataset)}, the models are trained on {_size(trained)}; "
            "give both the same size"
        )
    if dataset.classes != trained.classes:
        here = sorted(set(dataset.classes) ^ set(trained.classes))
        what = f"they differ in {', '.join(map(repr, here[:5]))}" if here else "their order differs"
        raise DataError(f"dataset {spec.data.name!r} and dataset {train.data.name!r} have other classes: {what}")
    return OpenedData(spec.data, dataset)


def _size(dataset: Dataset[Any]) -> str:
    channels, height, width = dataset.image_shape
    return f"{height} x {width} px with {channels} channels"
