"""Run a suite from Python, and read what is stored of it."""

from __future__ import annotations

from pathlib import Path

from robusteval.api.results import SuiteResults, read_results
from robusteval.execution.inputs import put_inputs, refuse_namesake
from robusteval.execution.runner import RunOptions, run_plan
from robusteval.planning.expand import expand
from robusteval.planning.loader import load_suite, read_spec
from robusteval.planning.names import is_path
from robusteval.planning.only import Filter
from robusteval.planning.plan import make_plan
from robusteval.schema.errors import CellError, UsageError, unknown_name
from robusteval.store.store import Store

DEFAULT_STORE = "./robusteval-store"


def run(
    suite: str | Path,
    *,
    store: str | Path = DEFAULT_STORE,
    only: str | None = None,
    device: str = "auto",
    executor: str = "serial",
    jobs: int | None = None,
    address: str | None = None,
) -> SuiteResults:
    """Train, attack and shift what is missing of a suite, and give back its results.

    Args:
        suite: name of a packaged suite, or path of a YAML file.
        store: folder (or URI, such as `s3://bucket/folder`) of results.
        only: filter of cells, such as `method=rift,seed=0`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        executor: `serial`, `processes`, `auto`, `ray` or `slurm`; scripts that use processes need an
            `if __name__ == "__main__"`.
        jobs: cells at a time; by default what fits the CPU, or the cluster.
        address: of the Ray cluster, such as `auto`; a local one is started without it.

    Raises:
        UsageError: the suite or an argument is wrong.
        CellError: cells failed; everything else is stored, and the message names them.
    """
    place = Store.open(store)
    expansion = expand(load_suite(suite))
    plan = make_plan(expansion, place.state, None if only is None else Filter.parse(only))
    if not plan.cells:
        raise UsageError(f"only {only!r} matches no cell of {suite}; robusteval plan {suite} lists them")
    refuse_namesake(plan, place, str(suite))
    put_inputs(plan, place)
    summary = run_plan(plan, place, RunOptions(executor=executor, jobs=jobs, device=device, address=address))
    if summary.cancelled:
        raise KeyboardInterrupt
    if summary.failed:
        listed = "; ".join(f"{title}: {reason}" for title, reason in list(summary.failed.items())[:5])
        raise CellError(f"{len(summary.failed)} cells of {plan.suite} failed: {listed}")
    return read_results(plan.stored, place)


def load_results(suite: str | Path, *, store: str | Path = DEFAULT_STORE, version: int | None = None) -> SuiteResults:
    """What is stored of a suite; nothing is computed.

    Args:
        suite: name of a suite, or path of its YAML file.
        store: folder (or URI, such as `s3://bucket/folder`) of results.
        version: version of the suite; the one of the file, or the highest stored one.

    Raises:
        UsageError: nothing is stored of it.
        StoreError: a record cannot be read.
    """
    place = Store.open(store)
    name = str(suite)
    if is_path(name):
        spec = read_spec(name)
        name, version = spec.name, version or spec.version
    plan = place.get_plan(name, version)
    if plan is None:
        known = [f"{found.suite}@{found.version}" for found in place.plans(damaged=[])]
        raise UsageError(unknown_name("stored suite", name if version is None else f"{name}@{version}", known))
    return read_results(plan, place)
