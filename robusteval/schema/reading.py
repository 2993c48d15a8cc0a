"""YAML 1.2 with line numbers: plain values on one side, where each of them was written on the other.

Values are built from the composed node graph instead of by a YAML constructor, so that nothing but maps, lists,
strings, numbers, booleans and null can come out of a file, whatever its tags say.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from robusteval.schema.source import SUITE_FILE, FileKind, Loc, Problem, Source, SourceError, one_line, shorten

MAX_BYTES = 1_000_000
"""Largest file that is read."""
MAX_NODES = 20_000
"""Most values a file may stand for once its aliases are written out; a billion-laughs file goes far past it."""
MAX_DEPTH = 40
"""Deepest nesting."""

_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_CORE = "tag:yaml.org,2002:"
_TAG_WORDS = "maps, lists, strings, numbers, true, false and null"


def read_source(path: Path, shown: str | None = None, kind: FileKind = SUITE_FILE) -> Source:
    """Read a YAML 1.2 file.

    Args:
        path: the file.
        shown: how messages name it; the path by default.
        kind: what it is, for messages.

    Raises:
        SourceError: missing, too large, not UTF-8, not YAML 1.2, duplicate keys, tags, merge keys, or aliases that
            contain themselves or stand for too much.
    """
    shown = shown or str(path)
    text = _read_text(path, shown, kind)
    root = _compose(text, shown, kind)
    builder = _Builder(kind)
    value = builder.build(root, ()) if root is not None else None
    if builder.problems:
        raise SourceError(shown, builder.problems, kind.command)
    if root is None:
        raise SourceError(shown, [Problem(1, f"the file is empty; a {kind.noun} needs at least {kind.needs}")])
    return Source(path=path, shown=shown, text=text, value=value, lines=builder.lines)


def _read_text(path: Path, shown: str, kind: FileKind) -> str:
    def refuse(text: str) -> SourceError:
        return SourceError(shown, [Problem(1, text)])

    try:
        if not path.exists():
            raise refuse(f"no such file; {kind.listing}")
        if not path.is_file():
            raise refuse("not a regular file; give the path of a YAML file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise refuse(f"{size:,} bytes; a {kind.noun} file has at most {MAX_BYTES:,}")
        raw = path.read_bytes()
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}") from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SourceError(shown, [Problem(line, "not UTF-8; save the file as UTF-8 text")]) from None


def _compose(text: str, shown: str, kind: FileKind) -> Node | None:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("%YAML") and line.split()[1:2] != ["1.2"]:
            text = f"{line.strip()!r}: a {kind.noun} is YAML 1.2; delete the line"
            raise SourceError(shown, [Problem(number, text)])
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be read"
        raise SourceError(shown, [Problem(mark.line + 1 if mark else 1, f"not valid YAML: {what}")]) from None
    except YAMLError as error:
        position = getattr(error, "position", 0) or 0
        line_number = text[:position].count("\n") + 1
        raise SourceError(shown, [Problem(line_number, f"not valid YAML: {one_line(str(error))[:120]}")]) from None
    except RecursionError:
        raise SourceError(shown, [Problem(1, f"nested too deeply; at most {MAX_DEPTH} levels are read")]) from None
    return node


class _Builder:
    """Turns nodes into plain values, noting lines and problems."""

    def __init__(self, kind: FileKind) -> None:
        self._kind = kind
        self.lines: dict[Loc, int] = {}
        self.problems: list[Problem] = []
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: Node, loc: Loc) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(loc, line)
        if not self._admit(node, loc, line):
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, line) if self._is_text(str(node.value), line) else None
        self._open.add(id(node))
        try:
            if isinstance(node, SequenceNode):
                self._check_tag(node, "seq", line)
                return [self.build(child, (*loc, index)) for index, child in enumerate(node.value)]
            if isinstance(node, MappingNode):
                self._check_tag(node, "map", line)
                return self._mapping(node, loc)
        finally:
            self._open.discard(id(node))
        raise TypeError(f"unexpected YAML node {type(node).__name__}")

    def _admit(self, node: Node, loc: Loc, line: int) -> bool:
        self._count += 1
        if self._count > MAX_NODES:
            if self._count == MAX_NODES + 1:
                self._say(line, f"stands for more than {MAX_NODES:,} values; write less, or fewer aliases")
            return False
        if id(node) in self._open:
            self._say(line, f"the alias of anchor {node.anchor!r} contains itself; write the values out")
            return False
        if len(loc) > MAX_DEPTH:
            self._say(line, f"nested too deeply; at most {MAX_DEPTH} levels are read")
            return False
        return True

    def _mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first_line: dict[Hashable, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node, line)
            if key is None or not self._is_text(key, line):
                continue
            if key in first_line:
                self._say(line, f"duplicate key {shorten(key)}; it is on line {first_line[key]} already, keep one")
                continue
            first_line[key] = line
            self.lines.setdefault((*loc, key), line)
            found[key] = self.build(value_node, (*loc, key))
        return found

    def _key(self, node: Node, line: int) -> str | None:
        if node.tag == _CORE + "merge":
            self._say(line, "merge keys (<<) are not YAML 1.2; write the keys out")
        elif not isinstance(node, ScalarNode) or node.tag != _CORE + "str":
            written = node.value if isinstance(node, ScalarNode) else "a list or map"
            self._say(line, f"key {shorten(written)} is not a string; put it in quotes if it is meant as a name")
        else:
            return str(node.value)
        return None

    def _scalar(self, node: ScalarNode, line: int) -> Any:
        text = str(node.value)
        kind = str(node.tag).removeprefix(_CORE)
        try:
            match kind:
                case "str" | "timestamp":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return _parse_int(text)
                case "float":
                    return _parse_float(text)
        except ValueError:
            self._say(line, f"{shorten(text)} is not a number; write it as 10, 0.1 or 1e-3")
            return None
        self._check_tag(node, "str", line)
        return None

    def _is_text(self, text: str, line: int) -> bool:
        """Whether `text` can be written as UTF-8 and be part of a path."""
        if odd := _UNWRITABLE.search(text):
            self._say(line, f"{shorten(text)} holds the character {odd[0]!r}, which no text or path may; remove it")
        return odd is None

    def _check_tag(self, node: Node, kind: str, line: int) -> None:
        if node.tag != _CORE + kind:
            written = str(node.tag).replace(_CORE, "!!")
            self._say(line, f"tag {shorten(written)} is not allowed; a {self._kind.noun} is made of {_TAG_WORDS}")

    def _say(self, line: int, text: str) -> None:
        self.problems.append(Problem(line, text))


def _parse_int(text: str) -> int:
    plain = text.replace("_", "")
    if len(plain) > 40:
        raise ValueError("too long")
    return int(plain, 0) if plain.lstrip("+-")[:2].lower() in ("0o", "0x", "0b") else int(plain)


def _parse_float(text: str) -> float:
    lowered = text.replace("_", "").lower()
    sign = -1.0 if lowered.startswith("-") else 1.0
    if lowered.lstrip("+-") == ".inf":
        return sign * float("inf")
    if lowered.lstrip("+-") == ".nan":
        return float("nan")
    return float(lowered)
