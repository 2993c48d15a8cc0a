"""From pydantic's errors to lines a person can act on."""

from __future__ import annotations

import difflib
import re
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from robusteval.schema.errors import unknown_name
from robusteval.schema.source import Loc, Problem, Source, shorten

_WORDS = (
    (re.compile(r"^Value error, "), ""),
    (re.compile(r"^(Input|String|Value|Tuple|List) should "), "must "),
    (re.compile(r"be a valid dictionary or instance of \w+"), "be a map"),
    (re.compile(r"be a valid (dictionary|mapping)"), "be a map"),
    (re.compile(r"be a valid (tuple|list|array)"), "be a list"),
    (re.compile(r"be a valid integer.*"), "be a whole number"),
    (re.compile(r"be a valid number.*"), "be a number"),
    (re.compile(r"be a valid string"), "be a string"),
    (re.compile(r"be a valid boolean.*"), "be true or false"),
    (re.compile(r"greater than or equal to"), "at least"),
    (re.compile(r"less than or equal to"), "at most"),
    (re.compile(r"match pattern '.*'"), "be letters, digits and . _ + @ = - only, at most 80 of them"),
)


def explain(error: ValidationError, model: type[BaseModel], source: Source, prefix: Loc = ()) -> list[Problem]:
    """Write one problem for each error pydantic found.

    Args:
        error: what pydantic raised for `model`.
        model: the model that was validated.
        source: the file.
        prefix: where in the file the validated value sits.
    """
    details = error.errors(include_url=False)
    return [_problem(detail, model, source, prefix) for detail in details if not _is_told_already(detail, details)]


def _is_told_already(detail: ErrorDetails, details: list[ErrorDetails]) -> bool:
    """Whether another error says the same: a missing key stands there misspelt, a list is short of its wrong items."""
    loc = tuple(detail["loc"])
    if detail["type"] == "too_short":
        return any(other["loc"][: len(loc)] == loc and len(other["loc"]) > len(loc) for other in details)
    unknown = [tuple(other["loc"]) for other in details if other["type"] == "extra_forbidden"]
    beside = [str(other[-1]) for other in unknown if other[:-1] == loc[:-1]]
    return detail["type"] == "missing" and bool(difflib.get_close_matches(str(loc[-1]), beside, cutoff=0.5))


def _problem(detail: ErrorDetails, model: type[BaseModel], source: Source, prefix: Loc) -> Problem:
    loc = tuple(detail["loc"])
    kind = detail["type"]
    if kind in ("extra_forbidden", "missing"):
        parent, key = loc[:-1], str(loc[-1])
        owner = model_at(model, parent)
        place = dotted((*prefix, *parent))
        inside = f" in {place}" if place else ""
        if kind == "missing":
            text = f"missing key {key!r}{inside}; {_field_note(owner, key)}"
            return Problem(source.line((*prefix, *parent)), text)
        known = list(owner.model_fields) if owner else []
        text = unknown_name("key", key, known).replace(f"{key!r};", f"{key!r}{inside};", 1)
        return Problem(source.line((*prefix, *loc)), text)
    written = _written_part(source, prefix, loc)
    message = reword(detail["msg"])
    if kind == "value_error":
        return Problem(source.line(written), message)
    value = "empty" if detail["input"] is None else shorten(detail["input"])
    owner = model_at(model, written[len(prefix) : -1]) if len(written) > len(prefix) else None
    note = _field_note(owner, str(written[-1])) if owner else ""
    text = f"{dotted(written) or 'the file'} {message}, but is {value}" + (f"; {note}" if note else "")
    return Problem(source.line(written), text)


def _written_part(source: Source, prefix: Loc, loc: Loc) -> Loc:
    """Cut the names of union branches that pydantic appends to the location."""
    where = (*prefix, *loc)
    while len(where) > len(prefix) and where not in source.lines:
        where = where[:-1]
    return where


def reword(message: str) -> str:
    """Say what pydantic says in the words of the other messages."""
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    return message


def _field_note(owner: type[BaseModel] | None, key: str) -> str:
    info = owner.model_fields.get(key) if owner else None
    note = (info.description or "") if info else ""
    note = note.split(". ")[0].rstrip(".")
    # An acronym keeps its capitals: `CPU threads`.
    return note if note[1:2].isupper() else note[:1].lower() + note[1:]


def dotted(loc: Loc) -> str:
    """A location as a user would say it: `methods[2].params.epochs`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


def model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model that describes the value at `loc` inside a value of `model`, or None."""
    current: Any = model
    for step in loc:
        current = _bare(current)
        if isinstance(step, int):
            arguments = get_args(current)
            if not arguments:
                return None
            current = arguments[0]
        elif isinstance(current, type) and issubclass(current, BaseModel) and step in current.model_fields:
            current = current.model_fields[step].annotation
        else:
            return None
    current = _bare(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """Strip `Annotated` and `| None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            options = [option for option in get_args(annotation) if option is not type(None)]
            if len(options) != 1:
                return annotation
            annotation = options[0]
        else:
            return annotation
