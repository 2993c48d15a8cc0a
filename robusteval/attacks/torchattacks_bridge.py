"""Every attack of torchattacks (Kim, 2020, arXiv 2010.01950) by its class name, such as `torchattacks/APGD`.

The library is used for its proposals alone: they are clipped, re-verified and counted here. Known weaknesses are
left as they are and belong to the name: its AutoAttack runs 10 steps instead of 100 and is not the published one,
its PGD returns the last iterate, its CW compares costs over the whole batch. Because examples of one call influence
each other, calls are cut into chunks of a fixed size that is part of the parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, cast

from pydantic import field_validator
from torch import Tensor

from robusteval.attacks.base import Attack
from robusteval.attacks.bridging import PlainModule, foreign, seeded
from robusteval.models.classifier import Classifier
from robusteval.schema.digest import stable_int
from robusteval.schema.errors import UnknownNameError, UsageError, unknown_name
from robusteval.schema.types import Access, Frozen, JsonValue, Norm, PositiveInt

ALL_NORMS = frozenset(Norm)
NORMS: dict[str, frozenset[Norm]] = {
    **dict.fromkeys(("APGD", "APGDT", "AutoAttack", "FAB", "Square"), frozenset({Norm.LINF, Norm.L2})),
    **dict.fromkeys(("CW", "DeepFool", "PGDL2", "PGDRSL2"), frozenset({Norm.L2})),
    "EADEN": frozenset({Norm.L1, Norm.L2}),
    "EADL1": frozenset({Norm.L1}),
    **dict.fromkeys(("GN", "VANILA", "SparseFool", "OnePixel", "Pixle", "JSMA"), ALL_NORMS),
}
"""Norms of the classes that are not linf alone. FAB's l1 mode raises UnboundLocalError in 3.5.1 and is left out."""

UNBOUNDED = frozenset({"CW", "DeepFool", "EADEN", "EADL1", "GN", "JSMA", "OnePixel", "Pixle", "SparseFool"})
"""Classes without a radius (minimum norm, or few pixels): their result is clipped into the ball."""

SCORE_BASED = frozenset({"OnePixel", "Pixle", "SPSA", "Square"})
"""Classes that use no gradient."""

NORM_WORDS = {Norm.LINF: "Linf", Norm.L2: "L2"}
RADIUS_NAMES = ("eps", "max_epsilon")
OWN_NAMES = frozenset({"self", "model", "norm", "seed", "verbose", "n_classes", *RADIUS_NAMES})
"""Keyword arguments that are set from the threat, the model and the evaluation seed, never by the user."""


class TorchattackParams(Frozen):
    """Parameters of an attack of torchattacks."""

    kwargs: dict[str, JsonValue] = {}
    """Keyword arguments of the class; after resolution every one is present. The radius, norm, seed and number of
    classes are set by robusteval. `alpha: null` keeps the class's own ratio of step to radius."""
    chunk: PositiveInt = 64
    """Examples that are attacked together, whatever the evaluator's batch size."""


class Torchattack(Attack[TorchattackParams]):
    """A class of torchattacks inside the attack contract; `torchattack` makes the concrete ones."""

    source: ClassVar[Callable[..., Any]]
    """The class of torchattacks."""

    def run(self, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int) -> Tensor:
        """See `Attack.run`."""
        proposed = images.clone()
        for first in range(0, len(labels), self.params.chunk):
            part = slice(first, first + self.params.chunk)
            chunk_seed = stable_int(self.name, seed, int(keys[first]), bits=31)
            with seeded(chunk_seed), foreign(self.name):
                attack = self._instance(model, chunk_seed)
                proposed[part] = attack(images[part].clone(), labels[part].clone())
        return proposed

    def _instance(self, model: Classifier, seed: int) -> Any:
        accepted = inspect.signature(self.source).parameters
        kwargs = {name: value for name, value in self.params.kwargs.items() if name != "alpha" or value is not None}
        radius = float(self.threat.epsilon)
        for name in RADIUS_NAMES:
            if name in accepted:
                kwargs[name] = radius
                if "alpha" in accepted and "alpha" not in kwargs:
                    kwargs["alpha"] = accepted["alpha"].default * radius / accepted[name].default
        own = {"norm": NORM_WORDS.get(self.threat.norm), "seed": seed, "n_classes": model.classes}
        kwargs.update({name: value for name, value in own.items() if name in accepted})
        instance = self.source(PlainModule(model), **kwargs)
        instance.set_device(model.device)  # torchattacks cannot tell from a model without parameters
        if self.source.__name__ == "JSMA":  # by default its target is the next class modulo 10, whatever the model has
            instance.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % model.classes, quiet=True)
        return instance

    @classmethod
    def passes(cls, params: TorchattackParams, classes: int) -> tuple[int, int]:
        """See `Attack.passes`; an estimate from the class's own loop bounds."""
        forward, backward = _loop_passes(cls.source.__name__, params.kwargs, classes)
        return forward + 2, backward


_LOOPS: dict[str, Callable[[dict[str, Any], int], tuple[int, int]]] = {
    "VANILA": lambda _kwargs, _classes: (0, 0),
    "GN": lambda _kwargs, _classes: (0, 0),
    "Square": lambda kwargs, _classes: (kwargs["n_queries"] * kwargs["n_restarts"] + 2, 0),
    "AutoAttack": lambda kwargs, classes: _ensemble_passes(str(kwargs["version"]), classes),
    "SPSA": lambda kwargs, _classes: (2 * kwargs["nb_sample"] * kwargs["nb_iter"], 0),
    "OnePixel": lambda kwargs, _classes: (5 * kwargs["pixels"] * kwargs["popsize"] * (kwargs["steps"] + 1), 0),
    "Pixle": lambda kwargs, _classes: ((kwargs["restarts"] + 1) * (kwargs["max_iterations"] + 1), 0),
    "EADL1": lambda kwargs, _classes: _elastic_net_passes(kwargs),
    "EADEN": lambda kwargs, _classes: _elastic_net_passes(kwargs),
    "FAB": lambda kwargs, classes: (2 * _iterations(kwargs) + 4, classes * _iterations(kwargs)),
    "APGD": lambda kwargs, _classes: (_iterations(kwargs) + 3, _iterations(kwargs) + 1),
    "APGDT": lambda kwargs, classes: (
        (classes - 1) * (_iterations(kwargs) + 3),
        (classes - 1) * (_iterations(kwargs) + 1),
    ),
    "DeepFool": lambda kwargs, classes: (kwargs["steps"] + 1, classes * kwargs["steps"]),
    "SparseFool": lambda kwargs, classes: (51 * kwargs["steps"], 50 * classes * kwargs["steps"]),
    "JSMA": lambda _kwargs, classes: (100, 100 * classes),
}
"""Forward and backward passes of classes whose loop is not simply `steps`."""


def _iterations(kwargs: dict[str, Any]) -> int:
    """Gradient evaluations of an iterative class, inner averages and restarts included."""
    steps = int(next((kwargs[key] for key in ("steps", "num_iter_set") if key in kwargs), 1))
    for key in ("eot_iter", "n_restarts", "noise_batch_size", "m"):
        steps *= int(kwargs.get(key, 1))
    return steps * (int(kwargs.get("N", 0)) + 1)


def _ensemble_passes(version: str, classes: int) -> tuple[int, int]:
    """The library's own AutoAttack: 10 steps, all K - 1 targets, 5000 queries, 5 restarts in `plus`."""
    if version == "rand":
        return 450, 440
    restarts = 5 if version == "plus" else 1
    forward = 5010 + restarts * 15 * 3 + 50 * classes
    return forward, restarts * (11 * 2 + 10 * classes) + 22 * classes


def _elastic_net_passes(kwargs: dict[str, Any]) -> tuple[int, int]:
    loops = int(kwargs["binary_search_steps"]) * int(kwargs["max_iterations"])
    return 2 * loops, loops


def _loop_passes(name: str, kwargs: dict[str, Any], classes: int) -> tuple[int, int]:
    """Forward and backward passes of the class's loops on an example that survives."""
    if name in _LOOPS:
        return _LOOPS[name](kwargs, classes)
    iterations = _iterations(kwargs)
    return iterations + 1, iterations


def torchattacks_names() -> list[str]:
    """Every attack class of torchattacks; wrappers around other attacks are none."""
    from robusteval.models.bridges import import_torchattacks

    library = import_torchattacks()
    return sorted(set(library.__all__) - set(library.__wrapper__))


def torchattack(name: str) -> type[Attack[Any]]:
    """The attack class for a class of torchattacks.

    Args:
        name: class name as torchattacks spells it, such as `APGD`.

    Raises:
        UnknownNameError: torchattacks has no such attack.
        UsageError: the name is that of a wrapper around other attacks.
    """
    from robusteval.models.bridges import import_torchattacks

    library = import_torchattacks()
    wrappers = set(library.__wrapper__)
    known = sorted(set(library.__all__) - wrappers)
    if name in wrappers:
        raise UsageError(
            f"torchattacks/{name} wraps other attacks; list several attacks instead, each example keeps its worst case"
        )
    if name not in known:
        near = [f"torchattacks/{other}" for other in known]
        by_case = {other.lower(): other for other in known}.get(name.lower())
        hint = f"unknown attack 'torchattacks/{name}'; did you mean 'torchattacks/{by_case}'?"
        raise UnknownNameError(hint if by_case else unknown_name("attack", f"torchattacks/{name}", near))
    source = getattr(library, name)
    members = {
        "__doc__": f"`torchattacks.{name}`, clipped and re-verified.",
        "__module__": __name__,
        "name": f"torchattacks/{name}",
        "Params": _params_type(name, source),
        "norms": NORMS.get(name, frozenset({Norm.LINF})),
        "access": Access.SCORE if name in SCORE_BASED else Access.WHITE_BOX,
        "bounded": name not in UNBOUNDED,
        "source": staticmethod(source),
    }
    return cast("type[Attack[Any]]", type(f"Torchattack{name}", (Torchattack,), members))


def _params_type(name: str, source: Callable[..., Any]) -> type[TorchattackParams]:
    """Parameters whose `kwargs` are checked against, and filled from, the class's signature."""
    signature = inspect.signature(source).parameters
    defaults = {key: value.default for key, value in signature.items() if key not in OWN_NAMES}
    scaled = "alpha" in defaults and any(key in signature for key in RADIUS_NAMES)

    class Params(TorchattackParams):
        @field_validator("kwargs")
        @classmethod
        def _fill(cls, given: dict[str, Any]) -> dict[str, Any]:
            for key in given:
                if key in OWN_NAMES and key in signature:
                    raise ValueError(f"{key!r} is set from the threat, the model and the seed; leave it out")
                if key not in defaults:
                    raise ValueError(unknown_name(f"keyword argument of torchattacks/{name}", key, defaults))
            filled = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
            if scaled:
                filled["alpha"] = None
            return filled | given

    Params.__name__ = Params.__qualname__ = f"{name}Params"
    Params.__doc__ = f"Parameters of torchattacks/{name}."
    return Params
