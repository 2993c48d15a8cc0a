"""From boards on disk to the files of the site; equal boards give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robusteval.leaderboard.across import Standing, standing
from robusteval.leaderboard.boards import Board, load_board
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.evidence import Evidence
from robusteval.leaderboard.ranking import Group, GroupName, rank_board
from robusteval.leaderboard.shelf import Contents, Shelf
from robusteval.leaderboard.site.across_view import across_view
from robusteval.leaderboard.site.entry_view import entry_view
from robusteval.leaderboard.site.view import FittedTrend, figures, fit_trends, group_view, page_data, rests_of
from robusteval.leaderboard.tables import board_csv, board_document
from robusteval.leaderboard.text import visible
from robusteval.schema.errors import DataError

Page = tuple[str, bytes]
"""Path below the site's folder, and content."""


@dataclass(frozen=True)
class BoardSummary:
    """One line of the index."""

    name: str
    title: str
    measured: int
    reported: int
    first: str


@dataclass(frozen=True)
class BuildReport:
    """What building or checking a site found.

    Attributes:
        pages: number of files.
        differing: files that are absent or differ from what is on disk; empty after a build.
        problems: entries that could not be read.
    """

    pages: int
    differing: tuple[str, ...]
    problems: tuple[str, ...]


def build_site(folders: Sequence[Path], out: Path, *, check: bool = False) -> BuildReport:
    """Write the site of some boards, or compare it with what is there.

    Args:
        folders: folders of boards.
        out: folder of the site.
        check: write nothing, and say which files would change.

    Raises:
        SourceError: a board file is wrong.
        DataError: two boards have one name.
        OSError: a file cannot be written.
    """
    problems: list[str] = []
    differing = []
    count = 0
    for name, blob in site_pages(folders, problems.append):
        count += 1
        path = out / name
        if not path.is_file() or path.read_bytes() != blob:
            differing.append(name)
            if not check:
                _write(path, blob)
    return BuildReport(count, tuple(differing) if check else (), tuple(problems))


def site_pages(folders: Sequence[Path], complain: Callable[[str], None]) -> Iterator[Page]:
    """Every file of the site; `complain` gets a line for each entry that cannot be read."""
    pages = _environment()
    summaries: list[BoardSummary] = []
    standings: dict[str, Standing] = {}
    for folder in sorted(folders, key=lambda folder: folder.name):
        board, shelf = load_board(folder), Shelf(folder)
        if any(summary.name == board.name for summary in summaries):
            raise DataError(f"{folder}: a second board is called {board.name!r}; build them into different folders")
        contents = shelf.read()
        for line in contents.problems:
            complain(line)
        evidence = Evidence(board, shelf.groups)
        groups = rank_board(board, contents.active(), evidence)
        summaries.append(_summary(board, groups))
        if groups and groups[0].name == "measured":
            standings[board.name] = standing(board, groups[0])
        trends = {group.name: fit_trends(board, group, evidence) for group in groups}
        yield from _board_pages(pages, board, contents, groups, trends)
    yield "index.html", _render(pages, "index.html", boards=summaries, across=across_view(standings), root="")
    yield from _assets()


def _write(path: Path, blob: bytes) -> None:
    """Replace a file in one step; a site can be made again, so nothing waits until it is safe on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:40]}.tmp")
    temporary.write_bytes(blob)
    temporary.replace(path)


def _summary(board: Board, groups: Sequence[Group]) -> BoardSummary:
    counts = {group.name: len(group.entries) for group in groups}
    best = [entry.id for group in groups[:1] for entry in group.entries if group.places[entry.id].rank == 1]
    first = best[0] + (f" and {len(best) - 1} tied" if len(best) > 1 else "") if best else "-"
    return BoardSummary(board.name, board.title, counts.get("measured", 0), counts.get("reported", 0), first)


def _board_pages(
    pages: Environment,
    board: Board,
    contents: Contents,
    groups: Sequence[Group],
    trends: Mapping[GroupName, Sequence[FittedTrend]],
) -> Iterator[Page]:
    newest, commit = _newest(contents.active())
    superseded = [{"id": name, "by": by} for name in contents.entries if (by := contents.replaced_by(name)) is not None]
    drawn = [{**figure, "svg": Markup(figure["svg"])} for figure in figures(board, groups)]  # noqa: S704
    yield (
        f"{board.name}/index.html",
        _render(
            pages,
            "board.html",
            root="../",
            board=board,
            groups=[group_view(board, group, trends[group.name]) for group in groups],
            entries=len(contents.active()),
            newest=newest,
            commit=commit,
            figures=drawn,
            superseded=superseded,
            data=page_data(board, groups, trends),
        ),
    )
    document = json.dumps(board_document(board, groups), indent=1, sort_keys=True, ensure_ascii=True)
    yield f"{board.name}/board.json", document.encode() + b"\n"
    yield f"{board.name}/board.csv", board_csv(board, groups).encode()
    rests = {name: lines for found in trends.values() for name, lines in rests_of(board, found).items()}
    for entry in contents.entries.values():
        view = entry_view(board, entry, contents.entries.get(entry.reproduces or ""))
        view |= {"replaced_by": contents.replaced_by(entry.id), "rests": rests.get(entry.id, [])}
        page = _render(pages, "entry.html", root="../../", board=board, **view)
        yield f"{board.name}/entries/{entry.id}.html", page


def _newest(entries: Sequence[Entry]) -> tuple[str, str]:
    """Time and commit of the newest record; no time of building, so that equal boards give equal bytes."""
    records = [record for entry in entries for record in entry.records]
    if not records:
        return "", ""
    newest = max(records, key=lambda record: (record.timing.started_at, record.cell_key))
    return newest.timing.started_at, (newest.provenance.git_commit or "")[:12]


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """What a template prints: control characters of foreign text are written out wherever it stands."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _render(pages: Environment, template: str, **values: Any) -> bytes:
    text = pages.get_template(template).render(**values)
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


def _assets() -> Iterator[Page]:
    folder = Path(__file__).parent / "assets"
    for path in sorted(folder.iterdir()):
        if path.suffix in (".css", ".js"):
            yield f"assets/{path.name}", path.read_bytes()
    plotly = files("plotly").joinpath("package_data", "plotly.min.js")
    yield "assets/plotly.min.js", plotly.read_bytes()
