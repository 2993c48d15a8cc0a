"""Commands that start from a suite file: run, plan, validate."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from robusteval.cli.options import (
    DEFAULT_STORE,
    AddressOption,
    BudgetOption,
    DeviceOption,
    ExecutorOption,
    ExecutorSettings,
    JobsOption,
    JsonOption,
    OnlyOption,
    QuietOption,
    Resume,
    ShardsOption,
    StoreOption,
    SuiteArgument,
    VerboseOption,
    examples,
    key_values,
    open_store,
    shortened,
)
from robusteval.cli.plan_table import print_plan

if TYPE_CHECKING:
    from robusteval.execution.events import RunSummary
    from robusteval.planning.plan import Plan
    from robusteval.store.store import Store

CELLS_FAILED = 3
INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "robusteval run digits",
            "robusteval run ./my-suite.yaml --store results --jobs 4",
            "robusteval run digits --only method=rift,seed=0",
            "robusteval run digits --resume failed",
            "robusteval run digits --budget 500",
            "robusteval run digits --device cuda --dry-run",
            "robusteval run digits --executor ray --address auto --shards 8",
            "robusteval run digits --executor slurm --executor-option partition=gpu",
        )
    )(run)
    app.command(
        epilog=examples(
            "robusteval plan digits",
            "robusteval plan digits --only evaluator=adversarial",
            "robusteval plan digits --executor ray",
            "robusteval plan ./my-suite.yaml --json | jq .pending",
        )
    )(plan)
    app.command(
        epilog=examples("robusteval validate ./my-suite.yaml", "robusteval validate digits smoke --json"),
    )(validate)


def run(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    only: OnlyOption = None,
    budget: BudgetOption = None,
    resume: Annotated[
        Resume, typer.Option(help="What runs: cells without a result; failed and damaged ones too; all again.")
    ] = Resume.MISSING,
    executor: ExecutorOption = "auto",
    address: AddressOption = None,
    executor_option: ExecutorSettings = None,
    jobs: JobsOption = None,
    shards: ShardsOption = 1,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    replace_plan: Annotated[
        bool, typer.Option("--replace-plan", help="Show this suite in place of another of its name and version.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Start nothing more after a failure.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
) -> None:
    """Run what is missing of a suite, then print its table.

    Finished cells are never run again, so an interrupted run continues where it was.
    """
    from robusteval.cli import render
    from robusteval.cli.results import print_scores, read_scores
    from robusteval.execution.inputs import put_inputs, refuse_namesake
    from robusteval.execution.runner import RunOptions, run_plan

    planned, place = _prepare(suite, store, only, budget)
    if dry_run:
        print_plan(planned, as_json)
        return
    options = RunOptions(
        executor=executor,
        jobs=jobs,
        device=device,
        resume=resume.value,
        fail_fast=fail_fast,
        shards=shards,
        address=address,
        executor_options=key_values("--executor-option", executor_option),
    )
    if not replace_plan:
        refuse_namesake(planned, place, suite)
    put_inputs(planned, place)
    with render.listener(quiet=quiet, verbose=verbose > 0) as shown:
        summary: RunSummary = run_plan(planned, place, options, shown)
    table, damaged = read_scores(place, planned.stored)
    print_scores(table, "json" if as_json else "table", verbose=verbose > 0)
    where = _where(executor, address, executor_option)
    _report(summary, damaged, quiet=quiet, again=_continuation(suite, store, only, budget, where))
    if summary.cancelled:
        raise typer.Exit(INTERRUPTED)
    if summary.failed or summary.blocked or damaged:
        raise typer.Exit(CELLS_FAILED)


def plan(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    only: OnlyOption = None,
    budget: BudgetOption = None,
    executor: Annotated[
        str, typer.Option(metavar="NAME", help="ray, slurm or processes: how many workers would help, too.")
    ] = "serial",
    as_json: JsonOption = False,
    verbose: VerboseOption = 0,
) -> None:
    """Show what a run would do, cell by cell, and what it would cost."""
    from robusteval.execution import EXECUTORS
    from robusteval.planning.workers import estimate_workers

    EXECUTORS.check(executor)
    planned, _ = _prepare(suite, store, only, budget)
    workers = estimate_workers(planned) if executor != "serial" else None
    print_plan(planned, as_json, keys=verbose > 0, workers=workers)


def validate(
    suites: Annotated[list[str], typer.Argument(metavar="SUITE...", help="Names or files.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Check suite files without running anything.

    Every name, parameter, start and data path is looked at; each problem is one line with its place.
    """
    from robusteval.planning.loader import load_suite
    from robusteval.schema.errors import UsageError
    from robusteval.schema.source import SourceError

    found: list[dict[str, object]] = []
    for name in suites:
        entry: dict[str, object] = {"suite": name, "problems": []}
        try:
            spec = load_suite(name).spec
            entry |= {"name": spec.name, "version": spec.version, "rows": len(spec.methods)}
        except SourceError as error:
            entry["problems"] = error.located()
        except UsageError as error:
            entry["problems"] = [f"{shortened(name)}: {error}"]
        found.append(entry)
    broken = any(entry["problems"] for entry in found)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for entry in found:
            problems = entry["problems"]
            assert isinstance(problems, list)
            for problem in problems or [f"{entry['suite']}: ok ({entry['rows']} rows)"]:
                print(problem)
    if broken:
        raise typer.Exit(2)


def _prepare(suite: str, store: str, only: str | None, budget: int | None) -> tuple[Plan, Store]:
    from robusteval.planning.budget import limited
    from robusteval.planning.expand import expand
    from robusteval.planning.loader import load_suite
    from robusteval.planning.only import Filter, valid_values
    from robusteval.planning.plan import make_plan
    from robusteval.schema.errors import UsageError
    from robusteval.store.progress import survey

    place = open_store(store)
    chosen = Filter.parse(only) if only is not None else None
    loaded = load_suite(suite)
    expansion = expand(loaded if budget is None else limited(loaded, budget))
    planned = make_plan(expansion, survey(place), chosen)
    if not planned.cells:
        raise UsageError(f"--only {only!r} matches no cell of {suite}; valid: {valid_values(expansion.cells)}")
    return planned, place


def _where(executor: str, address: str | None, settings: list[str] | None) -> list[str]:
    """The options that say where a run runs, unless it is this machine or the environment says it."""
    if executor in ("auto", "serial", "processes", os.environ.get("ROBUSTEVAL_EXECUTOR")):
        return []
    words = ["--executor", executor]
    if address not in (None, os.environ.get("ROBUSTEVAL_ADDRESS")):
        words += ["--address", address]
    return [*words, *(word for text in settings or () for word in ("--executor-option", text))]


def _continuation(
    suite: str, store: str, only: str | None, budget: int | None = None, where: Sequence[str] = ()
) -> str:
    """The command that continues an interrupted run."""
    words = ["robusteval", "run", suite]
    if store not in (DEFAULT_STORE, os.environ.get("ROBUSTEVAL_STORE")):
        words += ["--store", store]
    if only is not None:
        words += ["--only", only]
    if budget is not None:
        words += ["--budget", str(budget)]
    return shlex.join([*words, *where])


def _report(summary: RunSummary, damaged: list[str], *, quiet: bool, again: str) -> None:
    """Say on standard error what became of the run."""
    from robusteval.cli import render

    def say(text: str) -> None:
        print(" ".join(text.split()), file=sys.stderr)

    for title, reason in summary.failed.items():
        say(f"failed: {title}: {reason}")
    for text in (*damaged, *summary.notes):
        say(f"note: {text}")
    if summary.cancelled:
        say(f"interrupted; what was finished is in the store, `{again}` continues")
        return
    if summary.failed:
        blocked = f", {len(summary.blocked)} cells could not run for it" if summary.blocked else ""
        say(f"{len(summary.failed)} cells failed{blocked}; `{again} --resume failed` tries them again")
    if not quiet:
        say(f"{summary.done} cells run, {summary.cached} were there, {render.duration(summary.wall_s)}")
