"""The command that follows a run from another terminal or another machine: status."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robusteval.cli.options import DEFAULT_STORE, JsonOption, examples, open_store

if TYPE_CHECKING:
    from robusteval.store.progress import CellUnderWay, StoreProgress


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "robusteval status",
            "robusteval status s3://lab/results --watch",
            "robusteval status /mnt/shared/results --watch --every 30",
            "robusteval status --json | jq '.running[].owner'",
        )
    )(status)


def status(
    store: Annotated[
        str,
        typer.Argument(envvar="ROBUSTEVAL_STORE", metavar="[STORE]", help="Folder or URI of results."),
    ] = DEFAULT_STORE,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again and again, until every cell is done or failed.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two looks.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Show which cells of a store run now, who runs them, and how far each suite is.

    A cell is stale if its owner gives no sign of life any more; the next run takes it over. With --watch --json every
    look is one line.
    """
    from robusteval.store.progress import read_progress

    place = open_store(store)
    shown = ""
    while True:
        progress = read_progress(place)
        if as_json:
            print(json.dumps(_document(progress), indent=None if watch else 2), flush=True)
        else:
            shown = _show(progress, shown, watch=watch)
        for text in progress.damaged:
            print(f"note: {text}", file=sys.stderr)
        if not watch or progress.finished:
            return
        time.sleep(every)


def _document(progress: StoreProgress) -> dict[str, Any]:
    listed: dict[str, list[dict[str, Any]]] = {"running": [], "stale": []}
    for cell in progress.cells:
        listed[cell.state].append(_entry(cell))
    suites = [{"suite": one.suite, "version": one.version, **one.numbers} for one in progress.suites]
    return {"store": progress.uri, **listed, "suites": suites}


def _entry(cell: CellUnderWay) -> dict[str, Any]:
    seen, lease = cell.seen, cell.seen.lease
    entry = {"key": seen.key, "title": cell.title, "silent_s": round(seen.silent_s, 1)}
    if lease is None:
        return entry | {"owner": None, "started_at": None, "heartbeat_at": None, "what": "", "fraction": None}
    return entry | {
        "owner": {"host": lease.owner.host, "pid": lease.owner.pid},
        "started_at": lease.started_at,
        "heartbeat_at": lease.heartbeat_at,
        "what": lease.what,
        "fraction": lease.fraction,
    }


def _show(progress: StoreProgress, before: str, *, watch: bool) -> str:
    """Print the two tables, unless they say what they said before; returns what they say."""
    from robusteval.cli import render

    rows = [_row(cell) for cell in progress.cells]
    counts = [
        [
            f"{one.suite}@{one.version}",
            *map(str, one.numbers.values()),
        ]
        for one in progress.suites
    ]
    now = repr((rows, counts))
    if now == before:
        return now
    if watch and sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")
    idle = f"nothing runs in {progress.uri}" if counts else f"nothing runs and nothing is stored in {progress.uri}"
    render.print_table(["cell", "state", "owner", "since", "done", "what"], rows, [] if rows else [idle])
    if counts:
        print()
        render.print_table(["suite", *progress.suites[0].numbers], counts)
    sys.stdout.flush()
    return now


def _row(cell: CellUnderWay) -> list[str]:
    lease = cell.seen.lease
    if lease is None:
        return [cell.title, cell.state, cell.seen.owner, "", "", ""]
    return [cell.title, cell.state, cell.seen.owner, lease.started_at, f"{100 * lease.fraction:.0f} %", lease.what]
