"""Commands that run a model or a server for a leaderboard: board verify, board serve."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.boards import FolderOption, boards
from robusteval.cli.options import (
    DEFAULT_STORE,
    DeviceOption,
    JsonOption,
    MeanOption,
    StdOption,
    StoreOption,
    TrustCodeOption,
    examples,
    open_store,
)

if TYPE_CHECKING:
    from robusteval.leaderboard.entries import Entry
    from robusteval.leaderboard.verification import CellCheck, Verification


def register(_: typer.Typer) -> None:
    """Add the commands of this file to `board`."""
    boards.command(
        epilog=examples(
            "robusteval board verify pgd-at --board digits --n 200",
            "robusteval board verify mine --board ./leaderboards/digits --model model.safetensors",
            "robusteval board verify entry.json --board digits --model mypackage:load --trust-code --json",
        )
    )(verify)
    boards.command(epilog=examples("robusteval board serve", "robusteval board serve --boards ./leaderboards"))(serve)


def verify(
    entry: Annotated[
        str, typer.Argument(metavar="ENTRY", help="Id of an entry on the board, or an entry file.", show_default=False)
    ],
    board: Annotated[str, typer.Option(metavar="BOARD", help="Its board, by name or folder.", show_default=False)],
    n: Annotated[
        int, typer.Option("--n", min=1, max=10**9, metavar="N", help="Examples a role that are measured again.")
    ] = 200,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The model, if the store does not hold it: as in submit, once a training seed.",
            show_default=False,
        ),
    ] = None,
    trust_code: TrustCodeOption = False,
    mean: MeanOption = None,
    std: StdOption = None,
    draw: Annotated[
        int | None,
        typer.Option("--draw", min=0, metavar="SEED", help="Seed of the sample; random if absent.", show_default=False),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Run the model behind an entry: replay saved adversarial images, measure a random sample again.

    Exit code 6 if what is found contradicts the entry.
    """
    from robusteval.cli.model_names import classifiers
    from robusteval.leaderboard.findings import REJECTED
    from robusteval.leaderboard.places import find_board
    from robusteval.schema.registry import load_target

    found_entry = _find_entry(find_board(board), entry)
    given = classifiers(models or [], found_entry, trust_code=trust_code, mean=mean, std=std)
    found: Verification = load_target("robusteval.api.verification:verify_entry")(
        found_entry,
        open_store(store),
        n=n,
        draw=secrets.randbelow(2**32) if draw is None else draw,
        models=given,
        device=device,
    )
    if as_json:
        print(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        for cell in found.cells:
            print(_line(cell))
        for text in found.broken_rules:
            print(text, file=sys.stderr)
        print(_summary(found))
    if found.verdict == "inconsistent":
        raise typer.Exit(REJECTED)


def _find_entry(place: Path, text: str) -> Entry:
    from robusteval.leaderboard.shelf import Shelf
    from robusteval.schema.errors import UnknownNameError, unknown_name

    shelf = Shelf(place)
    if text.endswith(".json"):
        return shelf.read_file(Path(text))
    known = [path.stem for path in sorted((place / "entries").glob("*.json"))]
    if text not in known:
        raise UnknownNameError(unknown_name("entry", text[:80], known, listing=f"robusteval board show {place}"))
    return shelf.read_file(shelf.path(text))


def _line(cell: CellCheck) -> str:
    parts = [
        f"{cell.where}: {len(cell.rerun)} of {cell.examples} examples measured again, "
        f"{len(cell.overclaimed)} worse and {len(cell.underclaimed)} better than stated"
    ]
    if cell.replay is not None:
        parts.append(f"{cell.replay.verified} of {cell.replay.saved} saved images hold")
    return "; ".join([*parts, *cell.notes])


def _summary(found: Verification) -> str:
    return (
        f"{found.entry}: {found.verdict}; {found.differing} of {found.compared} outcomes and images differ, which an "
        f"honest entry shows with probability {found.probability:.3g}; at most {100 * found.false_at_most:.2g} % do "
        f"not hold (95 % confidence), and 5 % false ones would have been found with probability {found.power:.3g} "
        f"(--draw {found.draw})"
    )


def serve(
    board: Annotated[
        list[str] | None, typer.Argument(metavar="[BOARD]...", help="Boards; all packaged ones by default.")
    ] = None,
    folder: FolderOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port; 0 takes a free one.")] = 8000,
) -> None:
    """Build the site into a temporary folder and show it on this machine only; Ctrl-C ends it."""
    import tempfile

    from robusteval.leaderboard.places import boards_folder, boards_in, find_board
    from robusteval.leaderboard.site.build import build_site
    from robusteval.leaderboard.site.serve import site_server

    places = [find_board(name) for name in board] if board else list(boards_in(folder or boards_folder()).values())
    with tempfile.TemporaryDirectory(prefix="robusteval-site-") as out:
        report = build_site(places, Path(out))
        for line in report.problems:
            print(line, file=sys.stderr)
        with site_server(Path(out), port) as server:
            print(f"http://127.0.0.1:{server.server_port}/ shows {len(places)} boards; Ctrl-C ends it", flush=True)
            server.serve_forever()
