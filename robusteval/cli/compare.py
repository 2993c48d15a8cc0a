"""The command that gates a change: compare."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.options import DEFAULT_STORE, CellsOption, DeviceOption, StoreOption, examples, roles_of

if TYPE_CHECKING:
    from robusteval.scoring.verdicts import ModelComparison, Rule

REGRESSED = 4
INCONCLUSIVE = 5


class ComparisonFormat(StrEnum):
    """How a comparison is written."""

    TABLE = "table"
    JSON = "json"
    MD = "md"
    GITHUB = "github"


class NoiseUnit(StrEnum):
    """Source of the noise."""

    EXAMPLES = "examples"
    ATTACK_SEEDS = "attack-seeds"
    TRAIN_SEEDS = "train-seeds"


FormatOption = Annotated[ComparisonFormat, typer.Option("--format", help="How the comparison is written.")]
MarginOption = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS", help="Accept a drop of at most so many points; by default none that is not noise.",
        show_default=False,
    ),
]  # fmt: skip
SensitivityOption = Annotated[
    float, typer.Option(metavar="POINTS", help="Without a margin: drop that the check must be able to see.")
]
AlphaOption = Annotated[float, typer.Option(metavar="SHARE", help="False alarms over all cells together.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Inconclusive fails, with exit code 5.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "robusteval compare digits:erm digits:pgd-at",
            "robusteval compare main-store::digits pr-store::digits --strict",
            "robusteval compare main-store pr-store --suite digits --margin 1 --format github",
            "robusteval compare digits:erm digits:sam --unit train-seeds",
            "robusteval compare old.safetensors new.safetensors --suite digits",
            "robusteval compare tests/baselines/main digits:erm --cells r_id,a_id",
        )
    )(compare)


def compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="What is compared with.", show_default=False)],
    candidate: Annotated[
        str,
        typer.Argument(
            metavar="CAND",
            help="What is compared. Both are SUITE:ROW, SUITE, the beginning of a key, any of these after STORE::, or "
            "the path of a store, a record, a baseline or a .safetensors checkpoint.",
            show_default=False,
        ),
    ],
    margin: MarginOption = None,
    sensitivity: SensitivityOption = 2.0,
    alpha: AlphaOption = 0.05,
    unit: Annotated[NoiseUnit, typer.Option(help="What the noise is of.")] = NoiseUnit.EXAMPLES,
    cells: CellsOption = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="SUITE", help="Suite, where a store holds several or for a checkpoint.", show_default=False
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = "auto",
    form: FormatOption = ComparisonFormat.TABLE,
    strict: StrictOption = False,
) -> None:
    """Compare two models, or the rows of two stores, on the same examples.

    Every cell is tested by itself and corrected for their number. Exit code 4: regressed, or suspect because of a new
    reason for doubt; 5 with --strict: the check could not have seen it.
    """
    from robusteval.cli.operands import Context, read_side
    from robusteval.scoring.sides import compare_sides

    rule = make_rule(margin=margin, sensitivity=sensitivity, alpha=alpha, unit=unit.value.replace("-", "_"))
    context = Context(store, suite, device)
    found = compare_sides(read_side(base, context), read_side(candidate, context), rule, roles_of(cells))
    print_comparison(found, form)
    end_with_verdict(found, strict=strict)


def make_rule(*, margin: float | None, sensitivity: float, alpha: float, unit: str = "examples") -> Rule:
    """The rule that the options mean; points become fractions.

    Raises:
        UsageError: a number is out of range.
    """
    from robusteval.schema.params import checked_params
    from robusteval.scoring.verdicts import Rule

    written = {"margin": None if margin is None else margin / 100, "sensitivity": sensitivity / 100}
    return checked_params("comparison", Rule, {**written, "alpha": alpha, "unit": unit})


def print_comparison(found: ModelComparison, form: ComparisonFormat) -> None:
    """Write a comparison to standard output."""
    from robusteval.cli import render
    from robusteval.scoring import verdict_text

    if form is ComparisonFormat.JSON:
        print(json.dumps(verdict_text.to_json(found), indent=2))
    elif form is ComparisonFormat.MD:
        print(verdict_text.to_markdown(found), end="")
    elif form is ComparisonFormat.GITHUB:
        print(verdict_text.to_github(found), end="")
    else:
        header, rows = verdict_text.to_rows(found)
        render.print_table(header, rows, verdict_text.notes(found), title=verdict_text.headline(found))


def end_with_verdict(found: ModelComparison, *, strict: bool) -> None:
    """End with the exit code of the verdict, unless it is 0.

    Raises:
        typer.Exit: the comparison fails.
    """
    if found.failed():
        raise typer.Exit(REGRESSED)
    if found.failed(strict=strict):
        raise typer.Exit(INCONCLUSIVE)
