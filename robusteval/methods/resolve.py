"""From a method's name and what a user wrote to resolved parameters, and from those to a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from robusteval.data import AUGMENTATIONS
from robusteval.data.slices import checked_params
from robusteval.methods import METHODS
from robusteval.methods.base import Method, MethodParams
from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.types import Component, JsonValue


def resolve_method(name: str, params: Mapping[str, JsonValue]) -> Component:
    """Check parameters and fill in the defaults, in canonical form: equal settings give equal components.

    Args:
        name: registered name.
        params: what was written; everything else takes its default.

    Raises:
        UnknownNameError: the method is not registered.
        UsageError: a parameter is unknown or has a value that is not allowed.
    """
    checked = _validate(name, METHODS.load(name), params)
    resolved = checked.model_dump(mode="json", context={"canonical": True})
    resolved["augment"] = [_resolve_augmentation(name, part) for part in checked.augment]
    return Component(name=name, params=resolved)


def build_method(component: Component) -> Method[Any]:
    """The method a component stands for.

    Raises:
        UnknownNameError: the method is not registered.
        UsageError: a parameter is unknown or has a value that is not allowed.
    """
    method = METHODS.load(component.name)
    return method(_validate(component.name, method, component.params))


def _resolve_augmentation(name: str, component: Component) -> dict[str, JsonValue]:
    kind = AUGMENTATIONS.load(component.name)
    params = checked_params(f"method {name!r}: augmentation {component.name!r}", kind.Params, component.params)
    return {"name": component.name, "params": params.model_dump(mode="json", context={"canonical": True})}


def _validate(name: str, method: type[Method[Any]], params: Mapping[str, JsonValue]) -> MethodParams:
    try:
        checked = method.Params.model_validate(dict(params))
    except ValidationError as error:
        raise UsageError(_describe(name, method, error)) from None
    if checked.precision not in method.precisions:
        valid = ", ".join(sorted(method.precisions))
        raise UsageError(f"method {name!r}: parameter 'precision' is {checked.precision!r}; valid: {valid}")
    return checked


def _describe(name: str, method: type[Method[Any]], error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        what = unknown_name("parameter", place, method.Params.model_fields, listing=f"robusteval describe {name}")
        return f"method {name!r}: {what}"
    message = detail["msg"].removeprefix("Value error, ")
    if not place:
        return f"method {name!r}: {message}"
    return f"method {name!r}: parameter {place!r} is {detail['input']!r}; {message}"
