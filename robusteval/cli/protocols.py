"""Listing and describing the frozen protocols."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from robusteval.schema.registry import load_target

if TYPE_CHECKING:
    from robusteval.schema.protocols import Protocol


def names() -> tuple[str, ...]:
    """Names of all protocols."""
    found: tuple[str, ...] = load_target("robusteval.data.protocols:protocol_names")()
    return found


def _load(name: str) -> Protocol:
    found: Protocol = load_target("robusteval.data.protocols:load_protocol")(name)
    return found


def listed() -> Iterator[dict[str, Any]]:
    """One object a protocol, for a listing."""
    for name in names():
        protocol = _load(name)
        yield {
            "name": name,
            "selection": protocol.selection,
            "average": protocol.target.average,
            "digest": protocol.digest[:12],
            "summary": protocol.summary,
        }


def described(name: str) -> dict[str, Any]:
    """Everything about one protocol."""
    protocol = _load(name)
    facts = protocol.model_dump(mode="json", exclude={"name", "summary"}, exclude_none=True)
    return {"kind": "protocol", "name": name, "text": protocol.summary, "digest": protocol.digest, "protocol": facts}


def print_described(entry: dict[str, Any]) -> None:
    """Print what `described` says below its title."""
    from robusteval.cli import render

    settings = dict(entry["protocol"])
    references, notes, method = (settings.pop(key) for key in ("references", "notes", "method"))
    facts = [(key, _words(value)) for key, value in settings.items() if value not in ({}, [])]
    render.print_facts([*facts, ("digest", entry["digest"])])
    print()
    render.print_table(["method parameter", "value"], [[key, _words(value)] for key, value in method.items()])
    print()
    render.print_facts([("reference", f"{one['title']} ({one['venue']})") for one in references])
    if notes:
        print("\n" + "\n".join(f"- {note}" for note in notes))


def _words(value: Any) -> str:
    if isinstance(value, dict):
        if set(value) == {"name", "params"}:
            return f"{value['name']} ({_words(value['params'])})"
        return ", ".join(f"{key} {_words(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
