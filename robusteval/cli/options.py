"""Options that several commands share, with the environment variables they read."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from robusteval.store.store import Store

DEFAULT_STORE = "./robusteval-store"


class Resume(StrEnum):
    """Which cells run that have been run before."""

    MISSING = "missing"
    FAILED = "failed"
    ALL = "all"


class TableFormat(StrEnum):
    """How a table of results is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


class Listing(StrEnum):
    """What can be listed."""

    SUITES = "suites"
    METHODS = "methods"
    ATTACKS = "attacks"
    ARCHITECTURES = "architectures"
    DATASETS = "datasets"
    EVALUATORS = "evaluators"
    AUGMENTATIONS = "augmentations"
    SHIFTS = "shifts"
    PROTOCOLS = "protocols"
    EXECUTORS = "executors"
    RESULTS = "results"


SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="Name of a packaged suite, or path of a YAML file.", show_default=False)
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="ROBUSTEVAL_STORE",
        metavar="DIR",
        help="Folder (or file://, s3://, gs://, az:// URI) of results.",
    ),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILTER",
        help="Only cells that match, and the training they need: FIELD=PATTERN,... over label, method, "
        "seed, fold, role (train, a_id, a_ood, r_id, r_ood, r_unseen; r_id@0 for one threat), evaluator (train, clean, "
        "shift, adversarial); patterns as in a shell.",
        show_default=False,
    ),
]
BudgetOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=2**53 - 1,
        metavar="PASSES",
        help="Forward and backward passes that the attacks may spend on an example; gives a table of its own, "
        "SUITE+budget=PASSES.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
VerboseOption = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Say more; twice: tracebacks too.", show_default=False)
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        envvar="ROBUSTEVAL_EXECUTOR",
        metavar="NAME",
        help="auto, serial, processes, ray, slurm, or a plug-in (robusteval ls executors).",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        envvar="ROBUSTEVAL_ADDRESS",
        metavar="HOST:PORT",
        help="Cluster for --executor ray: auto, ray://host:port or host:port; a local one is started without it.",
        show_default=False,
    ),
]
ExecutorSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--executor-option",
        metavar="KEY=VALUE",
        help="Setting of the executor, such as partition=gpu; may be given several times.",
        show_default=False,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(envvar="ROBUSTEVAL_JOBS", min=1, metavar="N", help="Cells at a time; by default what fits the CPU."),
]
ShardsOption = Annotated[
    int, typer.Option(min=1, max=10_000, metavar="N", help="Divide each long attack into N tasks; same records.")
]
DeviceOption = Annotated[
    str, typer.Option(envvar="ROBUSTEVAL_DEVICE", metavar="NAME", help="auto, cpu, cuda or cuda:1.")
]
CellsOption = Annotated[
    str | None, typer.Option(metavar="ROLES", help="Only these cells, as a_id,r_id@0.", show_default=False)
]
MeanOption = Annotated[str | None, typer.Option(metavar="M,M,M", help="Mean the network expects.", show_default=False)]
StdOption = Annotated[
    str | None, typer.Option(metavar="S,S,S", help="Standard deviation it expects.", show_default=False)
]
TrustCodeOption = Annotated[
    bool, typer.Option("--trust-code", help="Allow MODULE:FACTORY as a model, which runs that code.")
]


def open_store(place: str) -> Store:
    """Open the store at a folder or a URI.

    Raises:
        UsageError: no folder can be there.
        UnreachableError: the store cannot be reached or read.
        StoreError: a newer robusteval made it.
    """
    from robusteval.schema.errors import UsageError
    from robusteval.store.store import Store

    try:
        store = Store.open(place)
        above = next(folder for folder in (store.local, *store.local.parents) if folder.exists())
    except RuntimeError:
        raise UsageError(f"--store {place!r}: there is no such user's home folder; write the path out") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--store {shortened(place)!r}: {reason}; give a folder") from None
    if not above.is_dir():
        raise UsageError(f"--store {place!r}: {above} is a file; give a folder")
    store.check()
    return store


def roles_of(cells: str | None) -> tuple[str, ...] | None:
    """The roles that `--cells` names; None for all."""
    return None if cells is None else tuple(part.strip() for part in cells.split(","))


def key_values(option: str, given: list[str] | None) -> dict[str, str]:
    """The settings that were given to an option as KEY=VALUE.

    Raises:
        UsageError: one has no key, or a key comes twice.
    """
    from robusteval.schema.errors import UsageError

    found: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key or key in found:
            reason = "comes twice" if key in found else "is not KEY=VALUE"
            raise UsageError(f"{option} {shortened(text)!r}: {reason}, such as partition=gpu")
        found[key] = value
    return found


def json_map(option: str, text: str) -> dict[str, Any]:
    """The JSON object that was given to an option.

    Raises:
        UsageError: it is none.
    """
    from robusteval.schema.errors import UsageError

    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{option} {shortened(text)!r}: is not a JSON object, such as '{{\"depth\": 34}}'")
    return found


def shortened(text: str) -> str:
    """What a user wrote, cut to what a message can hold."""
    return text if len(text) <= 80 else text[:77] + "..."


def examples(*lines: str) -> str:
    """The worked examples at the end of a command's help, one a line, not wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
