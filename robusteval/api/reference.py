"""The API reference, made from signatures and docstrings.

python -m robusteval.api.reference > robusteval/docs/api.md
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import robusteval
from robusteval.schema.types import Component

SECTIONS = ("Args:", "Returns:", "Raises:", "Examples:", "Attributes:")
RESULTS = (
    ("robusteval.api.results", "SuiteResults"),
    ("robusteval.api.fast_gating", "FastResult"),
    ("robusteval.evaluators.gate", "GateResult"),
)
"""Classes that the functions give back, by module."""
_HEAD = """# Python reference

Made from the docstrings by `python -m robusteval.api.reference`; every example on this page is executed by the tests.
Read [footguns](footguns.md) before you publish a number.
"""


def reference() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD]
    for name in robusteval.__all__:
        parts.append(_entry(f"robusteval.{name}", getattr(robusteval, name)))
    for module, name in RESULTS:
        kind = getattr(importlib.import_module(module), name)
        parts.append(_entry(name, kind))
        for member, value in vars(kind).items():
            function = value.fget if isinstance(value, property) else value
            if not member.startswith("_") and inspect.isfunction(function):
                parts.append(_entry(f"{name}.{member}", function, level=3, called=not isinstance(value, property)))
    return "\n".join(parts)


def _entry(title: str, found: Callable[..., Any], *, level: int = 2, called: bool = True) -> str:
    lines = [f"{'#' * level} {title}", ""]
    if inspect.isfunction(found) and called:
        lines += ["```python", f"{title.rpartition('.')[2]}{_signature(found)}", "```", ""]
    return "\n".join([*lines, *_body(inspect.getdoc(found) or ""), ""])


def _signature(function: Callable[..., Any]) -> str:
    written = inspect.signature(function)
    parts, starred = [], False
    for name, parameter in written.parameters.items():
        if name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
        parts.append(f"{stars}{name}: {parameter.annotation}{default}")
    one = f"({', '.join(parts)}) -> {written.return_annotation}"
    return one if len(one) < 100 else "(\n" + "".join(f"    {part},\n" for part in parts) + one[one.rindex(") -> ") :]


def _default(value: Any) -> str:
    """A default as a person would write it."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_default, value))}{',' if len(value) == 1 else ''})"
    return f"Component({value.name!r}, {value.params})" if isinstance(value, Component) else repr(value)


def _body(text: str) -> Iterator[str]:
    """Lines of a docstring, its sections as lists and code."""
    section = ""
    for line in text.splitlines():
        if line in SECTIONS:
            section = line
            yield f"**{line.rstrip(':')}**"
            yield ""
            if section == "Examples:":
                yield "```python"
        elif section == "Examples:":
            yield line.strip()
        elif section and (item := re.match(r"    (\*{0,2}\w+): (.*)", line)):
            yield f"- `{item[1]}`: {item[2]}"
        elif section and line.startswith("     "):
            yield f"  {line.strip()}"
        else:
            yield line.strip()
    if section == "Examples:":
        yield "```"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201
