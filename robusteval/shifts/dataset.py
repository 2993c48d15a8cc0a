"""The examples of another dataset under shifts, one domain for each shift, computed when they are asked for."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from torch import Tensor

from robusteval.data import DATASETS
from robusteval.data.computed import ComputedImages
from robusteval.data.imageset import Dataset, ImageSet, Split
from robusteval.data.slices import open_dataset
from robusteval.schema.digest import json_digest
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.params import checked_params
from robusteval.schema.specs import ComponentSpec
from robusteval.schema.types import Component, Frozen, NonNegativeInt
from robusteval.shifts.base import build_shift, resolve_shift


def _resolved(shifts: tuple[Component, ...]) -> tuple[Component, ...]:
    return tuple(resolve_shift(shift) for shift in shifts)


def _written_out(dataset: Component) -> Component:
    kind = DATASETS.load(dataset.name)
    params = checked_params(f"dataset {dataset.name!r}", kind.Params, dataset.params)
    return Component(name=dataset.name, params=params.model_dump(mode="json"))


class ShiftedParams(Frozen):
    """Parameters of a shifted dataset; `evaluate.ood.shifts` of a suite fills them in."""

    of: Annotated[ComponentSpec, AfterValidator(_written_out)]
    """Dataset whose examples are shifted."""
    domains: Annotated[tuple[str, ...], Field(min_length=1)]
    """Its domains."""
    shifts: Annotated[tuple[ComponentSpec, ...], Field(min_length=1), AfterValidator(_resolved)]
    """Shifts, each with one severity."""
    seed: NonNegativeInt = 0
    """Seed of the random fields; with the shift and the id of the clean example it fixes them."""


class ShiftedImages(ComputedImages):
    """N images under one shift.

    Args:
        images: the clean images.
        keys: (N,) hashes of the clean examples' ids.
        shift: the shift.
        seed: seed of its random fields.
    """

    def __init__(
        self, images: NDArray[np.uint8] | ComputedImages, keys: NDArray[np.int64], shift: Component, seed: int
    ) -> None:
        self._images, self._keys, self._seed = images, keys, seed
        self._shift = build_shift(shift)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `ComputedImages.shape`."""
        return self._images.shape

    def compute(self, positions: NDArray[np.int64], device: torch.device) -> Tensor:
        """See `ComputedImages.compute`."""
        if isinstance(self._images, ComputedImages):
            clean = self._images.compute(positions, device)
        else:
            clean = torch.from_numpy(self._images[positions]).to(device)
        keys = torch.from_numpy(self._keys[positions]).to(device)
        return self._shift(clean, keys=keys, seed=self._seed)


class ShiftedDataset(Dataset[ShiftedParams]):
    """A dataset under shifts. An example is called `<id>@<shift>`; its group is that of the clean example."""

    Params = ShiftedParams

    @cached_property
    def _of(self) -> Dataset[Frozen]:
        return open_dataset(self.params.of)

    @cached_property
    def _by_domain(self) -> dict[str, tuple[str, Component]]:
        """Domain name to the clean domain and the shift behind it."""
        found: dict[str, tuple[str, Component]] = {}
        for shift in self.params.shifts:
            for clean in self.params.domains:
                own = build_shift(shift).domain
                name = own if len(self.params.domains) == 1 else f"{clean}/{own}"
                if name in found:
                    raise DataError(f"two of the shifts are called {name!r}; keep one")
                found[name] = clean, shift
        return found

    @property
    def revision(self) -> str:
        """See `Dataset.revision`."""
        shifts = [shift.model_dump(mode="json") for shift in self.params.shifts]
        return json_digest({"of": self._of.revision, "shifts": shifts, "seed": self.params.seed})

    @property
    def classes(self) -> tuple[str, ...]:
        """See `Dataset.classes`."""
        return self._of.classes

    @property
    def domains(self) -> tuple[str, ...]:
        """See `Dataset.domains`."""
        return tuple(self._by_domain)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """See `Dataset.image_shape`."""
        return self._of.image_shape

    @property
    def mean(self) -> tuple[float, ...]:
        """See `Dataset.mean`."""
        return self._of.mean

    @property
    def std(self) -> tuple[float, ...]:
        """See `Dataset.std`."""
        return self._of.std

    def class_subset(self, domain: str) -> tuple[int, ...] | None:
        """Labels of the clean domain; see `Dataset.class_subset`."""
        clean, _ = self._parts(domain)
        return self._of.class_subset(clean)

    def ids(self, domain: str, split: Split) -> tuple[str, ...]:
        """See `Dataset.ids`."""
        clean, _ = self._parts(domain)
        return tuple(f"{name}@{domain}" for name in self._of.ids(clean, split))

    def load(self, domain: str, split: Split, n: int | None = None) -> ImageSet:
        """See `Dataset.load`."""
        clean, shift = self._parts(domain)
        examples = self._of.load(clean, split, n)
        return ImageSet(
            images=ShiftedImages(examples.images, examples.keys, shift, self.params.seed),
            labels=examples.labels,
            ids=tuple(f"{name}@{domain}" for name in examples.ids),
            groups=examples.groups,
            domains=(domain,) * len(examples),
            classes=examples.classes,
        )

    def _parts(self, domain: str) -> tuple[str, Component]:
        if domain not in self._by_domain:
            raise UnknownNameError(unknown_name("shifted domain", domain, self.domains))
        return self._by_domain[domain]
