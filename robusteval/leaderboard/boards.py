"""What a board is, and where boards are: `leaderboards/<board>/board.yaml` beside `entries/*.json`.

A board fixes what is ranked (the suite and its version, the examples by their digests, the threat models), by which
columns, and what counts as a tie; an entry that was measured differently is not comparable and is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from robusteval.leaderboard.text import Line, Text
from robusteval.schema.errors import unknown_name
from robusteval.schema.plans import Role
from robusteval.schema.problems import explain
from robusteval.schema.reading import read_source
from robusteval.schema.source import FileKind, Problem, SourceError, shorten
from robusteval.schema.specs import CELLS, Reference
from robusteval.schema.threats import Threat
from robusteval.schema.types import Digest, Frozen, Name, NonNegativeFloat, PositiveInt

BOARD_FILE = FileKind(
    noun="board",
    needs="name, version, title and columns",
    listing="`robusteval board ls` lists the packaged boards",
    command="robusteval board check",
)
_PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")
"""Two halves of one character, as JSON writes it."""
Unit = Literal["accuracy", "number"]
"""How a value is shown: an accuracy is a fraction in [0, 1] and shown in percent."""


class Column(Frozen):
    """One column of a board."""

    key: Name
    """What entries call it; `a_id`, `r_id`, `a_ood` and `r_ood` are the four accuracies of a suite."""
    title: Line
    """What the page calls it."""
    unit: Unit = "accuracy"
    """How it is shown."""
    higher_is_better: bool = True
    """Direction of improvement."""
    note: Text = ""
    """How it was measured, for the page."""


class SuiteRef(Frozen):
    """The suite that measured entries come from."""

    name: Name
    """Name of the suite."""
    version: PositiveInt
    """Its version."""


class TieRule(Frozen):
    """When two entries share a rank."""

    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Level, after Holm's correction over all pairs of the board, above which a difference is a tie."""
    examples: PositiveInt | None = None
    """Test examples that the protocol of reported numbers prescribes; without it they have no interval."""


class Minimum(Frozen):
    """The least an entry must have spent and shown."""

    examples: dict[Role, PositiveInt] = {}
    """Per role (`a_id`, `r_ood@0`): examples."""
    seeds: PositiveInt = 1
    """Training seeds."""
    forward_per_example: NonNegativeFloat = 0.0
    """Forward passes per attacked example."""
    backward_per_example: NonNegativeFloat = 0.0
    """Backward passes per attacked example."""
    attacks: tuple[Line, ...] = ()
    """Attacks whose outcomes must be there, members of an ensemble as `autoattack/square`."""


class Board(Frozen):
    """A leaderboard over one suite version, or over published numbers of one protocol."""

    name: Name
    """Name of the board and of its folder."""
    version: PositiveInt
    """Version; a change that makes entries incomparable is a new version."""
    title: Line
    """One line on what it ranks."""
    summary: Text = ""
    """A few sentences."""
    suite: SuiteRef | None = None
    """Suite of measured entries; absent if only reported numbers are kept."""
    columns: tuple[Column, ...] = Field(min_length=1)
    """Columns in the order of the page."""
    order: tuple[Name, ...] = Field(min_length=1)
    """Columns that decide the order, the most important first; a row that lacks one is not ranked."""
    pairs: tuple[tuple[Name, Name], ...] = ()
    """Pairs of columns over which Pareto fronts are drawn."""
    ties: TieRule = TieRule()
    """What counts as a tie."""
    minimum: Minimum = Minimum()
    """Least effort of a measured entry."""
    threats: tuple[Threat, ...] = ()
    """Threat models of the roles `r_id@T`, `r_ood@T`."""
    ids: dict[Role, Digest] = {}
    """Role to digest of the ordered example ids; empty for a suite with folds."""
    folds: dict[Line, dict[Role, Digest]] = {}
    """The same per fold, for a suite that trains every row once a fold; a column is the mean over all of them."""
    average: Literal["macro", "micro"] = "macro"
    """Out of distribution: whether domains count alike, or examples within a fold."""
    protocols: dict[Role, Digest] = {}
    """Role to digest of the evaluator, its parameters, protocol and seed; where absent, any are taken."""
    chance: dict[Name, NonNegativeFloat] = {}
    """Value of guessing per column, the reference of the hypervolume; 0 where absent."""
    references: tuple[Reference, ...] = ()
    """Where the protocol and the reported numbers come from."""
    licence: Line = ""
    """Licence of the reported numbers."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the columns."""
        return tuple(column.key for column in self.columns)

    @property
    def cells(self) -> tuple[str, ...]:
        """Those columns that are accuracies of a suite."""
        return tuple(key for key in CELLS if key in self.keys)

    def column(self, key: str) -> Column:
        """The column of that key."""
        return next(column for column in self.columns if column.key == key)

    @property
    def examples(self) -> dict[str, dict[Role, Digest]]:
        """Fold to the digests of its examples; the only fold of a suite without folds is called by an empty name."""
        return dict(self.folds) if self.folds else {"": dict(self.ids)}

    def pooled(self, column: str) -> bool:
        """Whether the examples of a fold count alike in a column, whatever their domain."""
        return self.average == "micro" and column.endswith("_ood")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for key in self.keys:
            if self.keys.count(key) > 1:
                raise ValueError(f"two columns are called {key!r}; keep one")
        used = [*self.order, *(key for pair in self.pairs for key in pair), *self.chance]
        for key in used:
            if key not in self.keys:
                raise ValueError(unknown_name("column", key, self.keys))
        self._check_roles()
        return self

    def _check_roles(self) -> None:
        named = [*self.minimum.examples, *self.protocols, *(role for ids in self.examples.values() for role in ids)]
        for role in named:
            column, _, place = role.partition("@")
            if column in ("r_id", "r_ood") and int(place) >= len(self.threats):
                raise ValueError(f"role {role!r}, but the board has {len(self.threats)} threats")
        if self.ids and self.folds:
            raise ValueError("ids are those of a suite without folds; give them per fold, or leave folds out")
        for fold, ids in self.examples.items() if self.suite is not None else ():
            missing = [key for key in self.cells if not any(role.partition("@")[0] == key for role in ids)]
            if missing:
                where = f"fold {fold!r}" if self.folds else "ids"
                raise ValueError(
                    f"{where} has no digest for {', '.join(missing)}; entries of a suite need one a column"
                )


def load_board(folder: Path) -> Board:
    """Read and check `board.yaml` in `folder`.

    Raises:
        SourceError: something is wrong with it, named by file and line.
    """
    path = folder / "board.yaml"
    source = read_source(path, str(path), BOARD_FILE)
    if not isinstance(source.value, dict):
        text = f"a board is a map with {BOARD_FILE.needs}, not {shorten(source.value)}"
        raise SourceError(source.shown, [Problem(1, text)], BOARD_FILE.command)
    try:
        board = Board.model_validate(source.value)
    except ValidationError as error:
        raise SourceError(source.shown, explain(error, Board, source), BOARD_FILE.command) from None
    if board.name != folder.resolve().name:
        text = f"name is {board.name!r}, but the folder is called {folder.resolve().name!r}; they must be equal"
        raise SourceError(source.shown, [Problem(source.line(("name",)), text)], BOARD_FILE.command)
    return board


def board_yaml(board: Board, comment: str = "") -> str:
    """A board as the text of its `board.yaml`; every string is quoted, so nothing in it can be read as anything else.

    Args:
        board: the board.
        comment: words for the first line.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    document = json.loads(board.model_dump_json(exclude_defaults=True))
    if board.threats:
        # In full, because the kind of a threat is told by a field that may be at its default.
        document["threats"] = [json.loads(threat.model_dump_json()) for threat in board.threats]
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{key}:")
            lines += [f"  - {_flow(item)}" for item in value]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A JSON value as YAML, which is the same but for characters beyond the first plane."""
    return _PAIR.sub(lambda pair: f"\\U{_code_point(pair):08x}", json.dumps(value, ensure_ascii=True))


def _code_point(pair: re.Match[str]) -> int:
    return ord(json.loads(f'"{pair[0]}"'))


def role_columns(board: Board) -> Sequence[tuple[str, str]]:
    """Pairs of role and column that a measured entry of the board fills: the first threat fills robust columns."""
    return [(f"{key}@0" if key.startswith("r_") else key, key) for key in board.cells]
