"""One generic registry: names to lazily imported targets.

Each package that owns a kind of thing holds one instance in its `__init__`, so names can be listed and checked
without importing what they stand for. Third-party plug-ins come in through entry points of the registry's group,
by the same path as the built-ins.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from robusteval.schema.errors import RobustevalError, UnknownNameError, unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    name: str
    """What a user writes."""
    target: str
    """`package.module:attribute`, imported on first use."""
    summary: str
    """One line for listings."""


class Registry(Generic[T]):
    """Names of one kind, each with a lazy target.

    Args:
        kind: what the names stand for, in the singular (`method`).
        entries: name to `(target, summary)`.
        families: prefix (with its slash, as in `timm/`) to `(target, summary)`; the target is called with what
            follows the prefix and returns the thing itself, or raises `UnknownNameError`.
        group: entry-point group of plug-ins, by default `robusteval.<kind>s`.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, tuple[str, str]],
        *,
        families: Mapping[str, tuple[str, str]] | None = None,
        group: str | None = None,
    ) -> None:
        self.kind = kind
        self.group = group or f"robusteval.{kind}s"
        self._entries = {name: Entry(name, target, summary) for name, (target, summary) in entries.items()}
        self._families = {name: Entry(name, *rest) for name, rest in (families or {}).items()}

    def entries(self) -> dict[str, Entry]:
        """Every registered name, plug-ins included, in alphabetical order."""
        found = dict(self._entries)
        for point in entry_points(group=self.group):
            if point.name in found:
                raise RobustevalError(
                    f"{self.kind} {point.name!r} is registered twice: {found[point.name].target} and {point.value}; "
                    f"uninstall the plug-in or ask its author for another name"
                )
            found[point.name] = Entry(point.name, point.value, f"plug-in {point.value}")
        return dict(sorted(found.items()))

    def families(self) -> dict[str, Entry]:
        """Prefixes under which a whole library is reachable, such as `timm/`."""
        return dict(self._families)

    def names(self) -> list[str]:
        """Every registered name."""
        return list(self.entries())

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name.startswith(tuple(self._families)) or name in self.entries()

    def check(self, name: str) -> str:
        """Return `name` if it is registered.

        Raises:
            UnknownNameError: it is not; the message lists near matches.
        """
        if name not in self:
            known = [*self.names(), *(prefix + "..." for prefix in self._families)]
            raise UnknownNameError(unknown_name(self.kind, name, known, listing=f"robusteval ls {self.kind}s"))
        return name

    def load(self, name: str) -> T:
        """Import and return what `name` stands for.

        Raises:
            UnknownNameError: the name is not registered.
        """
        self.check(name)
        for prefix, family in self._families.items():
            if name.startswith(prefix):
                member: T = load_target(family.target)(name[len(prefix) :])
                return member
        # Looking through every installed package for plug-ins takes 20 ms, which no built-in name needs.
        entry = self._entries.get(name) or self.entries()[name]
        loaded: T = load_target(entry.target)
        return loaded


def load_target(target: str) -> Any:
    """Import and return `package.module:attribute`.

    A name in a string keeps heavy packages out of the import graph of the floors that must stay light.
    """
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
