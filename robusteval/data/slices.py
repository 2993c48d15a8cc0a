"""From a dataset's name and parameters to exact, ordered examples, and back from a cell to the same examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from robusteval.data import DATASETS
from robusteval.data.imageset import Dataset, ImageSet, Split
from robusteval.schema.cells import LOCATIONS, DataSlice
from robusteval.schema.digest import ids_digest
from robusteval.schema.errors import DataError, UnknownNameError, unknown_name
from robusteval.schema.params import checked_params
from robusteval.schema.types import Component, Frozen, JsonValue

P = TypeVar("P", bound=Frozen)


def open_dataset(component: Component) -> Dataset[Any]:
    """The dataset that a component names.

    Raises:
        UnknownNameError: no such dataset.
        DataError: a parameter is wrong, or what is on disk cannot be used.
    """
    kind = DATASETS.load(component.name)
    return kind(checked_params(f"dataset {component.name!r}", kind.Params, component.params))


def make_slice(
    component: Component,
    dataset: Dataset[Any],
    domains: Sequence[str],
    split: Split,
    per_domain: int | None = None,
) -> DataSlice:
    """Name the examples of some domains and one split exactly; no pixel is read.

    Args:
        component: what `dataset` was opened from.
        dataset: the open dataset.
        domains: domains, in the order in which their examples follow each other.
        split: the split.
        per_domain: only the first so many examples of each domain; all if None.

    Raises:
        UnknownNameError: a domain that the dataset does not have.
        DataError: a domain is named twice, has no example in this split, or fewer than `per_domain`.
    """
    if not domains:
        raise DataError(f"dataset {component.name!r}: no domain is given; valid: {', '.join(dataset.domains)}")
    ids: list[str] = []
    for domain in domains:
        if domain not in dataset.domains:
            raise UnknownNameError(unknown_name(f"domain of dataset {component.name!r}", domain, dataset.domains))
        if list(domains).count(domain) > 1:
            raise DataError(f"dataset {component.name!r}: domain {domain!r} is given twice; name each domain once")
        found = dataset.ids(domain, split)
        if not found:
            raise DataError(f"dataset {component.name!r}: domain {domain!r} has no example in its {split} split")
        if per_domain is not None and per_domain > len(found):
            raise DataError(
                f"dataset {component.name!r}: {per_domain} examples were asked for, but domain {domain!r} has "
                f"{len(found)} in its {split} split; ask for {len(found)} or fewer"
            )
        ids.extend(found[:per_domain])
    return _named(component, dataset, domains, split, ids, per_domain)


def empty_slice(component: Component, dataset: Dataset[Any], domains: Sequence[str]) -> DataSlice:
    """No training example at all, of some domains; such a slice is named and never loaded.

    Raises:
        UnknownNameError: a domain that the dataset does not have.
    """
    for domain in domains:
        if domain not in dataset.domains:
            raise UnknownNameError(unknown_name(f"domain of dataset {component.name!r}", domain, dataset.domains))
    return _named(component, dataset, domains, "train", ())


def _named(
    component: Component,
    dataset: Dataset[Any],
    domains: Sequence[str],
    split: Split,
    ids: Sequence[str],
    per_domain: int | None = None,
) -> DataSlice:
    params = dataset.params.model_dump(mode="json")
    return DataSlice(
        dataset=Component(name=component.name, params=params),
        located=tuple(sorted(_located(params))),
        revision=dataset.revision,
        domains=tuple(domains),
        split=split,
        per_domain=per_domain,
        n=len(ids),
        ids_digest=ids_digest(ids),
    )


def _located(params: Mapping[str, JsonValue]) -> Iterator[str]:
    """Names of the parameters that are set to a place, those of a dataset among the parameters included."""
    for name, value in params.items():
        if name in LOCATIONS and value is not None:
            yield name
        elif isinstance(value, dict) and isinstance(value.get("params"), dict):
            yield from (f"{name}.params.{inner}" for inner in _located(value["params"]))


def load_slice(data: DataSlice, dataset: Dataset[Any] | None = None) -> ImageSet:
    """Open the dataset again and load exactly the examples of a slice.

    Args:
        data: the slice.
        dataset: its dataset, where that is open already; listing a large folder takes seconds.

    Raises:
        DataError: the dataset is gone, or its content is not what the slice was made from.
        CorruptRecordError: a cache file is damaged.
    """
    dataset = dataset or open_dataset(data.dataset)
    if dataset.revision != data.revision:
        raise DataError(
            f"dataset {data.dataset.name!r} changed since this cell was planned: its content is now "
            f"{dataset.revision[:16]}, the cell asks for {data.revision[:16]}; restore the old content or plan again"
        )
    if make_slice(data.dataset, dataset, data.domains, data.split, data.per_domain).ids_digest != data.ids_digest:
        raise DataError(
            f"dataset {data.dataset.name!r}: its {data.split} examples of {', '.join(data.domains)} are not those that "
            f"this cell was planned with; plan again"
        )
    return ImageSet.concatenate([_load(dataset, domain, data) for domain in data.domains])


def _load(dataset: Dataset[Any], domain: str, data: DataSlice) -> ImageSet:
    found = dataset.load(domain, data.split, data.per_domain)
    labels = dataset.class_subset(domain)
    return found if labels is None else replace(found, subsets={domain: labels})
