"""What every model of a suite is measured on, and how: one measurement for each role in the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robusteval.planning import targets
from robusteval.planning.loader import LoadedSuite
from robusteval.planning.ood import OpenedData
from robusteval.schema.cells import DataSlice
from robusteval.schema.plans import role_of, unseen_role
from robusteval.schema.specs import Cell, SliceSpec, ThreatSpec
from robusteval.schema.threats import Threat
from robusteval.schema.types import Component

_HALVES: tuple[tuple[Literal["id", "ood"], Cell, Cell, str], ...] = (
    ("id", "a_id", "r_id", "clean"),
    ("ood", "a_ood", "r_ood", "shift"),
)


@dataclass(frozen=True)
class Measurement:
    """One eval cell per model.

    Attributes:
        role: role in the table.
        data: examples.
        evaluator: evaluator with resolved parameters.
        protocol: version of the evaluator's code.
        threat: threat model; None where nothing attacks.
        passes: estimated forward plus backward passes of single examples.
    """

    role: str
    data: DataSlice
    evaluator: Component
    protocol: int
    threat: Threat | None
    passes: int

    @property
    def words(self) -> str:
        """The role as a title says it."""
        if self.role.startswith("a_ood:"):
            return f"shifted, weights by {self.role.partition(':')[2]}"
        halves = {"a_id": "clean", "a_ood": "shifted", "r_id": "attacked", "r_ood": "attacked, shifted"}
        words = halves.get(self.role.partition("@")[0], "unseen threat")
        return f"{words} ({self.threat})" if self.threat is not None else words


def domains_of(suite: LoadedSuite, half: Literal["id", "ood"]) -> tuple[str, ...]:
    """Domains of one half of the table; empty if there are none."""
    spec: SliceSpec = getattr(suite.spec.evaluate, half)
    if spec.domains is not None:
        return spec.domains
    trained = suite.spec.train.domains
    if half == "id":
        return trained
    if suite.ood is not None:
        domains: tuple[str, ...] = suite.ood.dataset.domains
        return domains
    return tuple(name for name in suite.dataset.domains if name not in trained)


def measurements_of(suite: LoadedSuite, trained_on: OpenedData) -> list[Measurement]:
    """Every measurement of a suite, in the order of the columns.

    Args:
        suite: the suite, of one fold.
        trained_on: its training data.

    Raises:
        DataError: the data has too few examples for what the suite asks.
        UsageError: a parameter is wrong.
    """
    found = []
    classes, evaluate = len(suite.dataset.classes), suite.spec.evaluate
    for half, clean, robust, evaluator in _HALVES:
        domains = domains_of(suite, half)
        if not domains:
            continue
        spec: SliceSpec = getattr(evaluate, half)
        opened = (suite.ood if half == "ood" else None) or trained_on
        found.append(_measurement(role_of(clean), _test(opened, domains, spec.examples), evaluator, {}, None, classes))
        attacked = _test(opened, domains, spec.robust_examples or spec.examples)
        for index, threat in enumerate(evaluate.threats):
            found.append(_robust(role_of(robust, index), attacked, threat, classes))
        for index, threat in enumerate(evaluate.unseen_threats if half == "id" else ()):
            found.append(_robust(unseen_role(index), attacked, threat, classes))
    return found


def _test(data: OpenedData, domains: tuple[str, ...], per_domain: int | None) -> DataSlice:
    return targets.make_slice(data.component, data.dataset, domains, "test", per_domain)


def _robust(role: str, data: DataSlice, spec: ThreatSpec, classes: int) -> Measurement:
    threat = spec.threat
    attacks = [targets.resolve_attack(attack, threat).model_dump(mode="json") for attack in spec.attacks]
    params = {"attacks": attacks, "cascade": spec.cascade, "budget": spec.budget, "keep": spec.keep}
    return _measurement(role, data, "adversarial", params, threat, classes)


def _measurement(
    role: str, data: DataSlice, name: str, params: dict[str, object], threat: Threat | None, classes: int
) -> Measurement:
    component = targets.resolve_evaluator(name, params)
    target = targets.registry("evaluator").load(name)
    checked = targets.params_of(target).model_validate(component.params)
    passes = sum(target.passes(checked, classes)) * data.n
    return Measurement(role, data, component, target.protocol, threat, passes)
