"""What the checks of all parts of a suite share: reading a part, and saying what is wrong with it at its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from robusteval.planning import targets
from robusteval.planning.ood import OpenedData
from robusteval.schema.errors import RobustevalError, unknown_name
from robusteval.schema.problems import explain, reword
from robusteval.schema.source import Loc, Problem, Source, shorten
from robusteval.schema.types import Component, Frozen

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset

M = TypeVar("M", bound=BaseModel)


@dataclass
class Findings:
    """What checking found besides problems.

    Attributes:
        problems: everything that is wrong.
        dataset: the opened dataset, if it could be opened.
        data: what it was opened from: paths resolved, what the suite's protocol says of it filled in.
        ood: what the out-of-distribution half is measured on, if that is another dataset.
        architecture: the network of the rows that name none, if it is right.
        weights: start checkpoints by what the suite calls them.
    """

    problems: list[Problem] = field(default_factory=list)
    dataset: Dataset[Any] | None = None
    data: Component | None = None
    ood: OpenedData | None = None
    architecture: Component | None = None
    weights: dict[str, Path] = field(default_factory=dict)


class Checking:
    """The check of one part of a suite.

    Args:
        source: the file.
        findings: what is known so far; grows.
    """

    def __init__(self, source: Source, findings: Findings) -> None:
        self.source = source
        self.findings = findings

    def part(self, model: type[M], *loc: str | int) -> M | None:
        """The part at `loc` if it is there and well formed, else None; what is malformed is said by the types."""
        value = self.source.at(loc)
        if value is None:
            return None
        try:
            return model.model_validate(value)
        except ValidationError:
            return None

    def say(self, loc: Loc, text: str) -> None:
        """Add a problem at the line of `loc`."""
        self.findings.problems.append(Problem(self.source.line(loc), text))

    def attempt(self, loc: Loc, action: Callable[[], Any]) -> Any:
        """Do something that may refuse; the refusal becomes a problem and the result None."""
        try:
            return action()
        except RobustevalError as error:
            self.say(loc, str(error))
        except ValidationError as error:
            self.say(loc, reword(error.errors()[0]["msg"]))
        except OSError as error:
            place = f"{shorten(error.filename)}: " if error.filename else ""
            self.say(loc, f"{place}cannot be read ({error.strerror or error}); give another path")
        return None

    def component(self, kind: str, component: Component, loc: Loc, name_key: str = "name") -> Any:
        """The registered class if its name and parameters are right, else None."""
        registry = targets.registry(kind)
        target = self.attempt((*loc, name_key), lambda: registry.load(component.name))
        if target is None:
            return None
        model: type[Frozen] = targets.params_of(target)
        try:
            model.model_validate(component.params)
        except ValidationError as error:
            self.findings.problems += explain(error, model, self.source, (*loc, "params"))
            return None
        return target

    def domains(self, names: tuple[str, ...], loc: Loc, dataset: Dataset[Any] | None) -> None:
        """Say which of the domains listed at `loc` stand there twice or are none of the dataset's."""
        for index, name in enumerate(names):
            where = (*loc, index)
            if name in names[:index]:
                self.say(where, f"domain {name!r} is listed twice; keep one")
            elif dataset is not None and name not in dataset.domains:
                other = self.findings.ood is not None and dataset is self.findings.ood.dataset
                named = self.source.at((*loc[:-1], "data") if other else ("train", "data"))
                listing = f"robusteval describe {shorten(named.get('name') if isinstance(named, dict) else named, 30)}"
                self.say(where, unknown_name("domain", name, dataset.domains, listing=listing.replace("'", "")))
