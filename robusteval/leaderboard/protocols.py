"""How a number came about, as a digest that a board can demand."""

from __future__ import annotations

from robusteval.schema.cells import EvalCell
from robusteval.schema.digest import json_digest


def protocol_digest(cell: EvalCell) -> str:
    """Digest of the evaluator, its parameters and protocol version, and the seed; not of the model, data or threat.

    An attack with fewer steps, fewer restarts or another loss has another digest.
    """
    asked = cell.model_dump(mode="json", context={"canonical": True})
    return json_digest({name: asked[name] for name in ("evaluator", "protocol", "seed")})
