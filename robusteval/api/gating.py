"""Ask whether a model's robust accuracy reaches a threshold, and stop as soon as that is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robusteval.api.models import AnyModel, Preprocessing, as_classifier
from robusteval.data.slices import load_slice
from robusteval.evaluators.adversarial import AdversarialParams
from robusteval.evaluators.base import EvaluationContext
from robusteval.evaluators.gate import GateResult, run_gate
from robusteval.execution.device import resolve_device
from robusteval.planning.expand import expand
from robusteval.planning.loader import LoadedSuite, load_suite
from robusteval.schema.cells import EvalCell
from robusteval.schema.errors import UsageError
from robusteval.schema.types import Component

QUICK = Component(name="autoattack", params={"mode": "gate"})
"""The attack of a gate: a cheap upper bound."""


def gate(
    model: AnyModel,
    suite: str | Path = "digits",
    *,
    threshold: float,
    confidence: float = 0.95,
    cell: str = "r_id",
    attacks: Sequence[str | Component] = (QUICK,),
    device: str = "auto",
    **declared: Any,
) -> GateResult:
    """Whether the robust accuracy on a cell of a suite is at least `threshold`, on as few examples as that takes.

    Examples are attacked in a random order that their ids fix, until the answer stands with the stated confidence. The
    result is no robust accuracy to compare with others, and is not stored.

    Args:
        model: as in `evaluate`.
        suite: name of a packaged suite, or path of a YAML file.
        threshold: robust accuracy that is asked about, in [0, 1].
        confidence: probability that the answer is right, at least.
        cell: attacked cell whose examples and threat model are taken, such as `r_id` or `r_ood@1`.
        attacks: attacks inside the threat model; by default ten steps each of apgd-ce and of apgd-t.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        **declared: `mean`, `std` and `value_range`, as in `evaluate`.

    Raises:
        UsageError: an argument makes no sense.
        CellError: the model does not fit the data, or breaks its contract.

    Examples:
        >>> import robusteval, torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 10))
        >>> robusteval.gate(network, threshold=0.9).decision
        'missed'
    """
    loaded = load_suite(suite)
    asked, _ = attacked_cell(loaded, cell)
    classifier = as_classifier(
        model,
        classes=len(loaded.dataset.classes),
        input_shape=loaded.dataset.image_shape,
        preprocessing=Preprocessing(**declared),
    )
    params = AdversarialParams.model_validate({"attacks": list(attacks)})
    before, place = classifier.device, resolve_device(device)
    try:
        return run_gate(
            classifier.to(place),
            load_slice(asked.data),
            EvaluationContext(seed=asked.seed, threat=asked.threat),
            params,
            threshold=threshold,
            confidence=confidence,
        )
    finally:
        classifier.to(before)


def attacked_cell(suite: LoadedSuite, name: str) -> tuple[EvalCell, str]:
    """The attacked cell of a suite that has that role, asked of its first row, and the full name of the role.

    Raises:
        UsageError: there is none.
    """
    expansion = expand(suite)
    roles = {role: key for role, key in expansion.stored.rows[0].cells.items() if role.startswith("r_")}
    role = name if name in roles else f"{name}@0"
    asked = next((item.cell for item in expansion.cells if item.key == roles.get(role)), None)
    if not isinstance(asked, EvalCell):
        raise UsageError(f"suite {suite.spec.name} has no attacked cell {name!r}; it has {', '.join(roles)}")
    return asked, role
