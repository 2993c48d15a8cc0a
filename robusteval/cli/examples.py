"""Commands about single examples: examples writes one row each, replay verifies their adversarial images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.lookup import find_key, find_plan
from robusteval.cli.options import DEFAULT_STORE, DeviceOption, JsonOption, QuietOption, StoreOption, open_store
from robusteval.cli.options import examples as worked
from robusteval.cli.results import end_with_notes

if TYPE_CHECKING:
    from robusteval.schema.plans import StoredPlan
    from robusteval.schema.records import ResultRecord
    from robusteval.schema.replays import Replay
    from robusteval.scoring.examples import ExampleColumns, Value
    from robusteval.store.store import Store

NOT_VERIFIED = 3


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=worked(
            "robusteval examples 3fb2c81a90d4 --out verdicts.csv",
            "robusteval examples digits --out digits.parquet",
            "robusteval examples 3fb2c81a90d4 --attacks autoattack/apgd-ce,autoattack/apgd-t --json",
        )
    )(examples)
    app.command(
        epilog=worked(
            "robusteval replay 3fb2c81a90d4",
            "robusteval replay 3fb2c81a90d4 --device cuda --json",
        )
    )(replay)


def examples(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SUITE|KEY", help="Suite (name, name@version or file), or a cell's key.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write: .csv, .json or .parquet.", show_default=False),
    ] = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Worst case over these attacks of the record alone, as a,b.", show_default=False
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one row an example: its prediction, the first attack that broke it, when, by how much, at what cost.

    CSV on standard output without --out. Only the store is read; no attack runs again.
    """
    from robusteval.scoring import example_files
    from robusteval.scoring.examples import joined

    if out is not None:
        example_files.check_ending(out)
    chosen = tuple(part.strip() for part in attacks.split(",")) if attacks is not None else None
    place = open_store(store)
    damaged: list[str] = []
    table = joined(list(_tables(place, what, chosen, damaged, quiet=quiet)))
    if out is not None:
        example_files.write_examples(table, out)
        if not quiet:
            print(f"wrote {out}: {len(table.get('example', []))} rows", file=sys.stderr)
    elif as_json:
        example_files.write_json(table, sys.stdout)
    else:
        example_files.write_csv(table, sys.stdout)
    end_with_notes(damaged)


def _tables(
    place: Store, what: str, attacks: tuple[str, ...] | None, damaged: list[str], *, quiet: bool
) -> Iterator[tuple[Mapping[str, Value], ExampleColumns]]:
    """The rows of each evaluation that is meant, and what a suite says about all of them."""
    from robusteval.schema.errors import StoreError, UsageError

    stored = find_plan(place, what)
    if stored is None:
        record = place.get(find_key(place, what))
        if record.evaluation is None:
            raise UsageError(
                f"cell {record.cell_key[:12]} is a train cell and has no examples; give an eval cell's key"
            )
        yield {}, _columns(place, record, attacks, quiet=quiet)
        return
    if attacks is not None:
        raise UsageError("--attacks is about one record; give the key of a cell (robusteval ls results)")
    for constants, key in _cells(stored):
        try:
            found = place.latest(key)
            if found is not None and found.evaluation is not None:
                yield constants, _columns(place, found, None, quiet=quiet)
        except (StoreError, OSError) as error:
            damaged.append(str(error))


def _cells(stored: StoredPlan) -> Iterator[tuple[dict[str, Value], str]]:
    """Every eval cell of a suite, with its place in the table."""
    for row in stored.rows:
        for role, key in row.cells.items():
            threat = stored.threat_of(role)
            shown = None if threat is None else str(threat)
            yield {"row": row.label, "seed": row.seed, "role": role.partition("@")[0], "threat": shown}, key


def _columns(place: Store, record: ResultRecord, attacks: tuple[str, ...] | None, *, quiet: bool) -> ExampleColumns:
    from robusteval.scoring.examples import example_columns, worst_case

    digest = record.evaluation.details if record.evaluation is not None else None
    sidecar = place.get_artefact(digest, "file of details") if digest is not None else None
    ids, groups = place.ids(record.cell.data.ids_digest)
    columns = example_columns(record, ids, groups, sidecar, attacks)
    if attacks is not None and not quiet:
        print(worst_case(record, sidecar, attacks), file=sys.stderr)
    return columns


def replay(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of an attacked cell.", show_default=False)],
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Verify saved adversarial images again, one forward pass each.

    Each must lie in the box and in the ball and be misclassified by the model of the record. Exit code 3 if one is not.
    """
    from robusteval.schema.registry import load_target

    place = open_store(store)
    record = place.get(find_key(place, key))
    found: Replay = load_target("robusteval.execution.replay:replay")(record, place, device)
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        for failure in found.failures:
            print(f"{failure.example}: {failure.reason}")
        print(
            f"{found.verified} verified, {len(found.failures)} failed: {found.saved} images of {found.threat} (within "
            f"{found.tolerance:.1g}), {found.rounded} as uint8 and {found.saved - found.rounded} as float32, on "
            f"{found.device}"
        )
    if found.failures:
        raise typer.Exit(NOT_VERIFIED)
