"""Commands that say what exists: ls, and describe beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robusteval.cli import describing, protocols
from robusteval.cli.options import DEFAULT_STORE, JsonOption, Listing, StoreOption, examples, open_store

if TYPE_CHECKING:
    from robusteval.schema.records import ResultRecord
    from robusteval.schema.specs import SuiteSpec
    from robusteval.store.store import Store

_MEMBERS = {
    "timm/": "robusteval.models.timm_bridge:timm_models",
    "torchattacks/": "robusteval.attacks.torchattacks_bridge:torchattacks_names",
}
"""What lists the members of a family; they are imported only for a pattern that starts with its prefix."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        name="ls",
        epilog=examples(
            "robusteval ls suites",
            "robusteval ls methods --json",
            "robusteval ls attacks --match '*pgd*'",
            "robusteval ls attacks --match 'torchattacks/*'",
            "robusteval ls results --match 'rift*'",
        ),
    )(list_names)
    describing.register(app)


def list_names(
    what: Annotated[Listing, typer.Argument(help="What to list.", show_default=False)],
    match: Annotated[str, typer.Option(metavar="GLOB", help="Only names that fit this shell pattern.")] = "*",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """List what exists, one line each."""
    from robusteval.cli import render
    from robusteval.cli.results import end_with_notes

    damaged: list[str] = []
    if what is Listing.SUITES:
        listed = [entry for entry in _suites() if fnmatchcase(entry["name"], match)]
    elif what is Listing.PROTOCOLS:
        listed = [entry for entry in protocols.listed() if fnmatchcase(entry["name"], match)]
    elif what is Listing.RESULTS:
        listed = [entry for entry in _results(store, damaged) if _fits(entry, match)]
    else:
        listed = [entry for entry in _registered(what.value, match) if fnmatchcase(entry["name"], match)]
    if as_json:
        print(json.dumps(listed, indent=2))
    else:
        header = list(listed[0]) if listed else []
        rows = [[_cell(name, value) for name, value in entry.items()] for entry in listed]
        render.print_table(header, rows, [] if rows else [_nothing(what, match, store)])
    end_with_notes(damaged)


def _nothing(what: Listing, match: str, store: str) -> str:
    """Why a listing is empty."""
    if what is not Listing.RESULTS:
        return f"no {what.value} match {match!r}"
    place = open_store(store)
    failed = sum(path.endswith(".json") for path in place.backend.paths("failures"))
    text = f"no results match {match!r}" if match != "*" else f"no results in {place.uri}"
    if failed:
        cells = "1 cell" if failed == 1 else f"{failed} cells"
        text += f"; {cells} failed, `robusteval run SUITE --resume failed` tries again"
    return text


def _suites() -> Iterator[dict[str, Any]]:
    from robusteval.planning.loader import read_spec
    from robusteval.planning.names import packaged_suites

    for name in packaged_suites():
        spec: SuiteSpec = read_spec(name)
        yield {"name": name, "version": spec.version, "rows": len(spec.methods), "summary": spec.summary}


def _registered(plural: str, match: str) -> Iterator[dict[str, Any]]:
    from robusteval.planning.targets import registry
    from robusteval.schema.registry import load_target

    known = load_target("robusteval.execution:EXECUTORS") if plural == "executors" else registry(plural[:-1])
    for name, entry in known.entries().items():
        yield {"name": name, "summary": entry.summary}
    for prefix, entry in known.families().items():
        if match.startswith(prefix):
            members = load_target(_MEMBERS[prefix])() if prefix in _MEMBERS else ()
            yield from ({"name": prefix + name, "summary": entry.summary} for name in members)
        else:
            yield {"name": f"{prefix}...", "summary": entry.summary}


def _results(store: str, damaged: list[str]) -> Iterator[dict[str, Any]]:
    place = open_store(store)
    titles = _titles(place, damaged)
    for record in sorted(place.records(damaged), key=lambda one: (titles.get(one.cell_key, ""), one.cell_key)):
        yield {
            "key": record.cell_key,
            "title": titles.get(record.cell_key, _anonymous(record)),
            "result": _headline(record),
            "started_at": record.timing.started_at,
            "wall_s": record.timing.wall_s,
        }


def _titles(place: Store, damaged: list[str]) -> dict[str, str]:
    """What the stored plans call their cells."""
    titles: dict[str, str] = {}
    for plan in place.plans(damaged):
        for row in plan.rows:
            if row.train_key is not None:
                titles.setdefault(row.train_key, f"{plan.suite}: {row.label} seed {row.seed}: train")
            for role, key in row.cells.items():
                titles.setdefault(key, f"{plan.suite}: {row.label} seed {row.seed}: {role}")
    return titles


def _anonymous(record: ResultRecord) -> str:
    cell = record.cell
    return f"train {cell.method.name}" if cell.kind == "train" else f"eval {cell.evaluator.name}"


def _headline(record: ResultRecord) -> str:
    if record.evaluation is not None and record.evaluation.metrics:
        main = record.evaluation.metrics[0]
        return f"{main.name} {main.value:.4f} (n={main.n})"
    if record.training is not None:
        return f"weights {record.training.weights[:12]}, epoch {record.training.selected_epoch}"
    return record.status


def _fits(entry: dict[str, Any], match: str) -> bool:
    words = entry["title"].split(": ")
    return any(fnmatchcase(text, match) for text in (entry["key"], entry["title"], *words))


def _cell(name: str, value: Any) -> str:
    return str(value)[:12] if name == "key" else str(value)
