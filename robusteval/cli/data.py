"""The commands for datasets on disk: data ls, link, fetch, verify."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robusteval.cli import data_report as report
from robusteval.cli.data_report import SPLITS
from robusteval.cli.options import JsonOption, QuietOption, examples, json_map

if TYPE_CHECKING:
    from robusteval.data.catalogue import Published
    from robusteval.data.imageset import Dataset
    from robusteval.data.leaks import Twin

_SIDE = 32
"""Pixels to which the scan for duplicates resizes pictures of different sizes."""

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Dataset (robusteval data ls).", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    data = typer.Typer(
        help="See, link, download and verify datasets.",
        no_args_is_help=True,
        epilog=examples("robusteval data ls", "robusteval data link pacs /data/pacs", "robusteval data verify pacs"),
    )
    data.command(name="ls", epilog=examples("robusteval data ls", "robusteval data ls --json"))(list_data)
    data.command(epilog=examples("robusteval data link pacs /data/pacs"))(link)
    data.command(epilog=examples("robusteval data fetch cifar10", "robusteval data fetch cifar10-c --into /data/c"))(
        fetch
    )
    data.command(
        epilog=examples(
            "robusteval data verify pacs",
            "robusteval data verify image-folder --path ./pictures --json",
            "robusteval data verify pacs --accept",
        )
    )(verify)
    app.add_typer(data, name="data")


def list_data(as_json: JsonOption = False) -> None:
    """List published datasets: whether they are there, and where they were looked for."""
    from robusteval.cli import render
    from robusteval.data.catalogue import PUBLISHED

    listed = [_known(name, published) for name, published in PUBLISHED.items()]
    if as_json:
        print(json.dumps(listed, indent=2))
        return
    header = ["name", "state", "images", "classes", "place", "from"]
    rows = [[str(entry[key]) for key in ("name", "state", "images", "classes", "place", "title")] for entry in listed]
    notes = ["absent: `robusteval data link NAME FOLDER`, or set 'path'; fetchable: `robusteval data fetch NAME`"]
    render.print_table(header, rows, notes)


def _known(name: str, published: Published) -> dict[str, Any]:
    from robusteval.data.places import datasets_folder

    place = datasets_folder() / name
    there = place.is_dir() and any(place.iterdir())
    state = "there" if there else "fetchable" if published.downloads else "absent"
    return {
        "name": name,
        "state": state,
        "images": sum(published.images.values()) or "",
        "classes": published.classes,
        "place": str(place.resolve()) if there else str(place),
        "layout": published.layout,
        "title": published.title,
        "homepage": published.homepage,
        "licence": published.licence,
    }


def link(
    name: NameArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the dataset lies.", show_default=False)],
) -> None:
    """Say where a dataset lies; suites that name it without a path then use that folder."""
    from robusteval.data.places import datasets_folder
    from robusteval.schema.errors import DataError, UsageError

    _published(name)
    target = folder.expanduser().resolve()
    if not target.is_dir():
        raise UsageError(f"{folder}: no such folder; give the folder of the dataset")
    place = datasets_folder() / name
    if place.exists() and not place.is_symlink():
        raise DataError(f"{place}: is a folder of its own; move it away first")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise DataError(f"{place}: cannot be written ({error.strerror}); set 'path' in the suite instead") from None
    print(f"{name}: {place} -> {target}")


def fetch(
    name: NameArgument,
    into: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the dataset; by default its place.", show_default=False),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Download a dataset, check it and unpack it.

    An interrupted download goes on where it stopped, and what was unpacked is not fetched again. Without a network the
    message says which file belongs where.
    """
    from robusteval.data.fetching import fetch as download_file
    from robusteval.data.places import datasets_folder
    from robusteval.data.unpacking import is_archive, is_unpacked, unpack
    from robusteval.schema.errors import UsageError

    published = _published(name)
    folder = (into or datasets_folder() / name).expanduser()
    if not published.downloads:
        raise UsageError(
            f"{name} cannot be downloaded by a program; get it from {published.homepage} ({published.licence}) and run "
            f"`robusteval data link {name} FOLDER`; it needs {published.layout}"
        )
    for download in published.downloads:
        if is_unpacked(download.name, folder):
            _say(f"{download.name} is unpacked already", quiet=quiet)
            continue
        path = download_file(download, folder, _bytes_progress(download.name, quiet=quiet))
        if is_archive(path):
            _say(f"unpacking {path.name}", quiet=quiet)
            unpack(path, folder)
            path.unlink()
    dataset = _open(name, {} if into is None else {"path": str(folder)})
    _ = (dataset.classes, dataset.domains)
    print(f"{name}: in {folder.resolve()}; licence: {published.licence}")


def verify(
    name: NameArgument,
    path: Annotated[
        str | None, typer.Option(metavar="PATH", help="The dataset's 'path', if it is not in its place.")
    ] = None,
    params: Annotated[str, typer.Option(metavar="JSON", help="Other parameters of the dataset.")] = "{}",
    leaks: Annotated[bool, typer.Option(help="Look for the same picture in two splits or domains.")] = True,
    accept: Annotated[bool, typer.Option("--accept", help="Take what is there now as right.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a dataset: its counts, every file against the first verification, every image, and leaks.

    Ends with code 2 if a file is not what it was, or an image is broken. The same picture in two splits or domains is
    reported, and left to you.
    """
    from robusteval.data.places import cache_folder
    from robusteval.data.verify import verify_files

    given = json_map("--params", params) | ({} if path is None else {"path": path})
    with tempfile.TemporaryDirectory(prefix="robusteval-verify-") as scratch:
        dataset = _open(name, given, scratch)
        counts = {domain: {split: len(dataset.ids(domain, split)) for split in SPLITS} for domain in dataset.domains}
        root = getattr(dataset, "root", None)
        changes = None
        if isinstance(root, Path):
            changes = verify_files(root, cache_folder(), _count_progress("files", quiet=quiet), accept=accept)
        twins = _twins(dataset, quiet=quiet) if leaks else []
    if as_json:
        print(json.dumps(report.as_json(name, counts, changes, twins), indent=2))
    else:
        report.show(name, counts, changes, twins, scanned=leaks)
    report.refuse_changes(changes)


def _published(name: str) -> Published:
    from robusteval.data.catalogue import PUBLISHED
    from robusteval.schema.errors import UnknownNameError, unknown_name

    if name not in PUBLISHED:
        raise UnknownNameError(unknown_name("published dataset", name, PUBLISHED, listing="robusteval data ls"))
    return PUBLISHED[name]


def _open(name: str, params: dict[str, Any], scratch: str | None = None) -> Dataset[Any]:
    """Open a dataset; with `scratch`, decoded small and outside the cache."""
    from robusteval.planning.targets import open_dataset, params_of, registry
    from robusteval.schema.types import Component

    fields = params_of(registry("dataset").load(name)).model_fields
    defaults = {"cache": scratch, "size": _SIDE, "fit": "stretch"} if scratch else {}
    chosen = {key: value for key, value in defaults.items() if key in fields} | params
    return open_dataset(Component(name=name, params=chosen))


def _twins(dataset: Dataset[Any], *, quiet: bool) -> list[Twin]:
    from robusteval.data.leaks import Fingerprints, find_twins, fingerprint

    parts = []
    for domain in dataset.domains:
        for split in SPLITS:
            total = len(dataset.ids(domain, split))
            if total:
                progress = _count_progress(f"images of {domain}, {split}", quiet=quiet)
                parts.append(fingerprint(dataset.load(domain, split), split, progress))
    return sorted(find_twins(Fingerprints.join(parts)), key=lambda twin: -twin.similarity) if parts else []


def _bytes_progress(what: str, *, quiet: bool) -> Callable[[int, int], None]:
    return _progress(lambda done, total: f"{what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", quiet=quiet)


def _count_progress(what: str, *, quiet: bool) -> Callable[[int, int], None]:
    return _progress(lambda done, total: f"{done} of {total} {what}", quiet=quiet)


def _progress(words: Callable[[int, int], str], *, quiet: bool) -> Callable[[int, int], None]:
    """A line on standard error every few seconds."""
    last = [time.monotonic()]

    def report(done: int, total: int) -> None:
        if not quiet and time.monotonic() - last[0] > 5.0:
            last[0] = time.monotonic()
            _say(words(done, total), quiet=quiet)

    return report


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr)
