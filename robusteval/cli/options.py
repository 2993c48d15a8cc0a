"""Options that several commands share, with the environment variables they read."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

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
    RESULTS = "results"


SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="Name of a packaged suite, or path of a YAML file.", show_default=False)
]
StoreOption = Annotated[
    str, typer.Option("--store", envvar="ROBUSTEVAL_STORE", metavar="DIR", help="Folder (or file:// URI) of results.")
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILTER",
        help="Only cells that match, and the training they need: FIELD=PATTERN,... over label, method, evaluator, "
        "seed, role.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
VerboseOption = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Say more; twice: tracebacks too.", show_default=False)
]
ExecutorOption = Annotated[
    str, typer.Option(envvar="ROBUSTEVAL_EXECUTOR", metavar="NAME", help="auto, serial or processes.")
]
JobsOption = Annotated[
    int | None,
    typer.Option(envvar="ROBUSTEVAL_JOBS", min=1, metavar="N", help="Cells at a time; by default what fits the CPU."),
]
DeviceOption = Annotated[
    str, typer.Option(envvar="ROBUSTEVAL_DEVICE", metavar="NAME", help="auto, cpu, cuda or cuda:1.")
]


def examples(*lines: str) -> str:
    """The worked examples at the end of a command's help, one a line, not wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
