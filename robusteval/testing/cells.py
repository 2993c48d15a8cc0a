"""Names of the cells of a suite, so that each can be a test of its own. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robusteval.schema.specs import SuiteSpec


def suite_cells(suite: str | Path, kind: str = "all") -> list[str]:
    """Roles of the cells that a suite measures of every model, in the order of its table.

    Use it as `@pytest.mark.parametrize("cell", suite_cells("digits"))` and hand the name to
    `robusteval_check(model, suite="digits", cells=[cell])`.

    Args:
        suite: name of a packaged suite, or path of a YAML file.
        kind: `all`, `clean` or `robust`.

    Raises:
        UsageError: there is no such suite, or no such kind.
        SourceError: the file is not a suite.
    """
    from robusteval.planning.loader import read_spec
    from robusteval.schema.errors import UsageError, unknown_name
    from robusteval.schema.plans import role_of, unseen_role

    if kind not in ("all", "clean", "robust"):
        raise UsageError(unknown_name("kind of cells", kind, ("all", "clean", "robust")))
    spec = read_spec(suite)
    halves = ("id", "ood") if _has_shifted_half(suite, spec) else ("id",)
    threats = range(len(spec.evaluate.threats))
    found = []
    for half in halves:
        if kind != "robust":
            found.append(role_of("a_id" if half == "id" else "a_ood"))
        if kind != "clean":
            found += [role_of("r_id" if half == "id" else "r_ood", index) for index in threats]
    if kind != "clean":
        found += [unseen_role(index) for index in range(len(spec.evaluate.unseen_threats))]
    return found


def _has_shifted_half(suite: str | Path, spec: SuiteSpec) -> bool:
    """Whether the suite measures anything out of distribution."""
    from robusteval.planning import targets
    from robusteval.planning.names import find_suite
    from robusteval.planning.opening import anchored

    ood = spec.evaluate.ood
    if ood.domains is not None or ood.data is not None or ood.shifts is not None:
        return True
    path = suite if isinstance(suite, Path) else find_suite(suite)
    dataset = targets.open_dataset(anchored(spec.train.data, path))
    return any(domain not in spec.train.domains for domain in dataset.domains)
