"""From a method's name and what a user wrote to resolved parameters, and from those to a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robusteval.data import AUGMENTATIONS
from robusteval.methods import METHODS
from robusteval.methods.base import Method, MethodParams
from robusteval.schema.errors import UsageError
from robusteval.schema.params import canonical_params, checked_params
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
    resolved = canonical_params(checked)
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
    return {"name": component.name, "params": canonical_params(params)}


def _validate(name: str, method: type[Method[Any]], params: Mapping[str, JsonValue]) -> MethodParams:
    checked = checked_params(f"method {name!r}", method.Params, params)
    if checked.precision not in method.precisions:
        valid = ", ".join(sorted(method.precisions))
        raise UsageError(f"method {name!r}: parameter 'precision' is {checked.precision!r}; valid: {valid}")
    if checked.iterations is not None and method.counts_epochs:
        raise UsageError(f"method {name!r} counts in epochs; leave 'iterations' out and set 'epochs'")
    return checked
