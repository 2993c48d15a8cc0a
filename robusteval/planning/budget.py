"""A suite on a budget: the same cells, with a limit on the passes that the attacks may spend on an example."""

from __future__ import annotations

from dataclasses import replace

from robusteval.planning.loader import LoadedSuite
from robusteval.planning.names import is_name
from robusteval.schema.errors import UsageError


def limited(suite: LoadedSuite, budget: int) -> LoadedSuite:
    """The suite with `budget` in each of its threat models, under a name of its own: `digits+budget=500`.

    Its training and clean cells are those of the suite; its attacked cells have other keys, and its table does not take
    the place of the suite's.

    Raises:
        UsageError: the name becomes too long.
    """
    spec = suite.spec
    name = f"{spec.name}+budget={budget}"
    if not is_name(name):
        raise UsageError(f"--budget: the name {name!r} is longer than a suite's may be; write 'budget' into the suite")
    evaluate = spec.evaluate.model_copy(
        update={
            key: tuple(threat.model_copy(update={"budget": budget}) for threat in getattr(spec.evaluate, key))
            for key in ("threats", "unseen_threats")
        }
    )
    return replace(suite, spec=spec.model_copy(update={"name": name, "evaluate": evaluate}))
