"""How the images of a tree of domains become training, validation and test data.

Two ways: by a hash of each image's path, which never moves an image when others come or go; and exactly as DomainBed
(Gulrajani and Lopez-Paz, ICLR 2021, arXiv 2007.01434) draws its holdout, so that published protocols can be followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from robusteval.data.folder_index import ImageFile
from robusteval.data.imageset import Split, canonical_rank
from robusteval.schema.errors import DataError, unknown_name
from robusteval.schema.types import Fraction01, Frozen, NonNegativeInt

HOLDOUT = 0.2
"""Share of each domain that DomainBed holds out."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class DomainSplitParams(Frozen):
    """How domains are split, and how much of a domain that is not trained on is scored."""

    validation: Fraction01 = 0.2
    """Share held out for validation, by a hash of the relative path: of each domain, or, with layout `split` and no
    validation folder, of `train`."""
    test: Fraction01 = 0.2
    """Share of each domain held out for test, by the same hash (layout `domain`)."""
    split: Literal["hash", "domainbed"] = "hash"
    """`hash`: the shares above. `domainbed`: DomainBed's holdout of `trial`; 80 percent of a domain are trained on, and
    the other 20 percent are both its validation and its test split, because DomainBed has no third part."""
    trial: NonNegativeInt = 0
    """Trial seed of DomainBed's holdout."""
    sources: tuple[str, ...] | None = None
    """Domains that are split; every other domain is a target, with no training data and `score_share` of it as test
    split. By default every domain is split."""
    score_share: Literal["full", "80%"] = "full"
    """Part of a target that is its test split: all of it, or the 80 percent outside the holdout; the holdout is then
    the target's validation split, which only an oracle may read."""

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must be less than 1, so that training images are left")
        if self.sources == ():
            raise ValueError("sources is empty; name the domains to train on, or leave it out")
        if self.trial and self.split != "domainbed":
            raise ValueError("trial is a seed of split 'domainbed'; set that, or leave trial out")
        return self


def refuse_split_options(params: DomainSplitParams, what: str) -> None:
    """Refuse options that mean nothing where the data comes with its splits.

    Args:
        params: the options.
        what: where the splits are said, as the message starts.

    Raises:
        DataError: one of them is set.
    """
    default = DomainSplitParams()
    names = ("split", "trial", "sources", "score_share")
    given = [name for name in names if getattr(params, name) != getattr(default, name)]
    if given:
        raise DataError(
            f"{what} says which image is in which split, so {' and '.join(map(repr, given))} means nothing; remove it"
        )


def assign_splits(
    files: Sequence[ImageFile], domains: Sequence[str], params: DomainSplitParams
) -> dict[tuple[str, Split], list[int]]:
    """Positions in `files` of each split of each domain, ascending; a split without examples is left out.

    Args:
        files: images whose `top` is their domain.
        domains: every domain, in the order in which DomainBed numbers its environments: sorted.
        params: how to split.

    Raises:
        DataError: `sources` names a domain that is not there.
    """
    for name in params.sources or ():
        if name not in domains:
            raise DataError(unknown_name("domain in 'sources'", name, domains))
    positions: dict[tuple[str, Split], list[int]] = {}
    for number, domain in enumerate(domains):
        own = [index for index, file in enumerate(files) if file.top == domain]
        is_source = params.sources is None or domain in params.sources
        held_out = _held_out(files, own, number, params)
        parts = _source_splits(files, own, held_out, params) if is_source else _target_splits(own, held_out, params)
        positions |= {(domain, split): list(part) for split, part in parts.items() if part}
    return positions


def _held_out(files: Sequence[ImageFile], own: Sequence[int], number: int, params: DomainSplitParams) -> frozenset[int]:
    """Members of a domain that are in its 20 percent holdout."""
    if params.split == "hash":
        return frozenset(index for index in own if share_of(files[index].path) >= 1 - HOLDOUT)
    listed = sorted(own, key=lambda index: listing_order(files[index]))
    return frozenset(listed[place] for place in domainbed_holdout(len(listed), params.trial, number))


def _source_splits(
    files: Sequence[ImageFile], own: Sequence[int], held_out: frozenset[int], params: DomainSplitParams
) -> Mapping[Split, list[int]]:
    if params.split == "domainbed":
        rest = [index for index in own if index in held_out]
        return {"train": [index for index in own if index not in held_out], "validation": rest, "test": rest}
    parts: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for index in own:
        parts[hashed_split(files[index].path, params.validation, params.test)].append(index)
    return parts


def _target_splits(
    own: Sequence[int], held_out: frozenset[int], params: DomainSplitParams
) -> Mapping[Split, list[int]]:
    if params.score_share == "full":
        return {"test": list(own)}
    return {
        "validation": [index for index in own if index in held_out],
        "test": [index for index in own if index not in held_out],
    }


def share_of(name: str) -> float:
    """Position of a name in the canonical order, in [0, 1)."""
    return canonical_rank(name) / 2**63


def hashed_split(name: str, validation: float, test: float) -> Split:
    """Split of an example by a hash of its name, which also orders examples: each split is one run of that order."""
    position = share_of(name)
    if position >= 1 - test:
        return "test"
    return "validation" if position >= 1 - test - validation else "train"


def domainbed_holdout(n: int, trial: int, environment: int) -> list[int]:
    """Places that DomainBed holds out of an environment of `n` examples, in the order in which it draws them.

    The seed is the MD5 of the text `(trial, environment)` modulo 2**31; `range(n)` is shuffled by numpy's legacy
    generator, whose stream is frozen, and the first `floor(0.2 n)` are held out.
    """
    text = str((trial, environment)).encode()
    seed = int(hashlib.md5(text, usedforsecurity=False).hexdigest(), 16) % 2**31
    places = list(range(n))
    np.random.RandomState(seed).shuffle(places)
    return places[: int(n * HOLDOUT)]


def listing_order(file: ImageFile) -> tuple[str, str, str]:
    """Sort key of torchvision's `ImageFolder`, which numbers DomainBed's examples: class, folder, file name."""
    folder, _, name = file.path.rpartition("/")
    return file.label, folder, name


def domain_order(files: Iterable[ImageFile]) -> tuple[str, ...]:
    """Domains of `files`, sorted."""
    return tuple(sorted({file.top for file in files}))


def lone_classes(files: Iterable[ImageFile]) -> Iterator[tuple[str, str]]:
    """Classes that stand in one domain only, each with that domain, if there are several domains."""
    where: dict[str, set[str]] = {}
    for file in files:
        where.setdefault(file.label, set()).add(file.top)
    if len(set().union(*where.values())) > 1:
        yield from ((label, next(iter(tops))) for label, tops in sorted(where.items()) if len(tops) == 1)
