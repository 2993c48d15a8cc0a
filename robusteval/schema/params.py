"""Checking the parameters of a registered thing, with one line for the person who wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.types import Frozen, JsonValue

P = TypeVar("P", bound=Frozen)

LATER = "added later"
"""Annotation of a parameter that came after cells were stored: at its default it stays out of their keys."""


def checked_params(what: str, model: type[P], params: Mapping[str, JsonValue]) -> P:
    """Validate parameters and fill in the defaults.

    Args:
        what: what has the parameters, as the message names it (`method 'rift'`).
        model: its parameters.
        params: what was written.

    Raises:
        UsageError: one line with every wrong parameter.
    """
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        problems = "; ".join(_problem(model, detail) for detail in error.errors(include_url=False))
        raise UsageError(f"{what}: {problems}") from None


def canonical_params(params: Frozen) -> dict[str, JsonValue]:
    """Every parameter in the form that enters cell keys: equal settings give equal values.

    Parameters marked `LATER` are left out at their default, so that a new one changes no key of an old question.
    """
    dumped: dict[str, JsonValue] = params.model_dump(mode="json", context={"canonical": True})
    for name, field in type(params).model_fields.items():
        if LATER in field.metadata and getattr(params, name) == field.get_default(call_default_factory=True):
            del dumped[name]
    return dumped


def _problem(model: type[Frozen], detail: ErrorDetails) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return unknown_name("parameter", place, model.model_fields)
    if detail["type"] == "missing":
        return f"parameter {place!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"parameter {place!r} is {detail['input']!r}; {message}" if place else message
