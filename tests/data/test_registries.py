"""Every registered dataset and augmentation can be loaded and keeps its contract."""

from __future__ import annotations

import pytest

from robusteval.data import AUGMENTATIONS, DATASETS
from robusteval.data.augment import Augmentation
from robusteval.data.imageset import Dataset
from robusteval.schema.types import Frozen


@pytest.mark.parametrize("name", DATASETS.names())
def test_datasets_have_frozen_documented_parameters(name: str) -> None:
    dataset = DATASETS.load(name)
    assert issubclass(dataset, Dataset)
    assert issubclass(dataset.Params, Frozen)
    assert all(field.description for field in dataset.Params.model_fields.values())


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_augmentations_have_defaults_for_documented_parameters(name: str) -> None:
    augmentation = AUGMENTATIONS.load(name)
    assert issubclass(augmentation, Augmentation)
    assert augmentation(augmentation.Params()).draws > 0
    assert all(field.description for field in augmentation.Params.model_fields.values())
