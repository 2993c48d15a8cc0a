"""Cells on a Ray cluster: one task a cell, results written by the worker, only a summary sent back.

Ray's own retries are off, because a cell that raised has said what is wrong. A cell whose worker or node died is handed
out again a few times; what is in the store by then decides whether it runs.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from robusteval.execution.events import CellSummary, CellTask
from robusteval.execution.executors import ExecutorSetup
from robusteval.execution.lost import LostCells
from robusteval.execution.ray_session import RaySession
from robusteval.schema.errors import UsageError
from robusteval.schema.params import checked_params
from robusteval.schema.registry import load_target
from robusteval.schema.types import Frozen

if TYPE_CHECKING:
    from robusteval.execution.nodes import NodeNeeds, NodeReport

_POLL_S = 0.5
"""Seconds between two looks at what running cells say."""
_COUNT_S = 5.0
"""Seconds for which the number of cells that fit on the cluster is believed."""
_FAREWELL_S = 3.0
"""Seconds that running cells have to end by themselves when a run stops."""


class Params(Frozen):
    """Settings of the Ray executor."""

    resubmit: Annotated[int, Field(ge=0)] = 3
    """How often a cell is tried again whose worker or node died."""
    check_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that the nodes have to answer before the run."""
    patience_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds to wait for a node while none is left that a cell fits on."""


@dataclass(frozen=True)
class _Share:
    """What one cell takes of a node, in Ray's words."""

    CPU: float
    GPU: float
    memory: float

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many cells fit on a node with `resources`."""
        shares = ((self.CPU, "CPU"), (self.GPU, "GPU"), (self.memory, "memory"))
        return min(int(resources.get(name, 0.0) / need) for need, name in shares if need > 0)

    def __str__(self) -> str:
        gpus = f", {self.GPU:g} GPUs" if self.GPU else ""
        return f"{self.CPU:g} CPUs{gpus} and {self.memory / 1024**3:.1f} GB"


class RayExecutor:
    """Runs cells on a Ray cluster, or on a local one that ends with the run.

    Args:
        setup: what the run needs.

    Raises:
        UsageError: Ray is not installed, the address does not answer, or a node cannot run the cells; the message names
            which, and nothing has run.
    """

    def __init__(self, setup: ExecutorSetup) -> None:
        self._setup = setup
        self._params = checked_params("executor 'ray'", Params, setup.options)
        self._lost = LostCells(self._params.resubmit)
        self._running: dict[Any, CellTask] = {}
        self._slots, self._counted = 0, float("-inf")
        self._seen_node = self._heard = time.monotonic()
        self._news: Any = None
        self._session = RaySession(_import_ray, setup.address, setup.jobs, setup.resources)
        self._ray = self._session.ray
        try:
            from robusteval.execution.ray_worker import Mailbox, run_task

            self.device = self._choose_device()
            self._share = self._share_of_cell()
            self._check_nodes()
            self._mailbox = self._ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1).remote()
            self._run = self._ray.remote(max_retries=0)(run_task)
        except BaseException:
            self._session.close()
            raise

    @property
    def slots(self) -> int:
        """Cells that fit on the nodes that are alive, or what the user said."""
        if time.monotonic() - self._counted > _COUNT_S:
            self._counted = time.monotonic()
            fitting = sum(self._share.fits(node["Resources"]) for node in self._nodes())
            self._slots = max(1, min(self._setup.jobs or fitting, self._setup.cells))
            if fitting:
                self._seen_node = self._counted
        return self._slots

    def submit(self, task: CellTask) -> None:
        """Hand a cell to the cluster."""
        from robusteval.execution.nodes import versions

        share = self._share
        name = f"robusteval cell {task.key[:12]}"
        run = self._run.options(name=name, num_cpus=share.CPU, num_gpus=share.GPU, memory=share.memory)
        self._running[run.remote(task, self._setup.store_uri, versions(), self._mailbox)] = task

    def wait(self) -> CellSummary:
        """Block until some cell has ended, for good."""
        while True:
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)
            self._relay_progress()
            for reference in done:
                summary = self._collect(reference)
                if summary is not None:
                    return summary
            if not done and self.slots and time.monotonic() - self._seen_node > self._params.patience_s:
                return self._give_up()

    def stop(self) -> None:
        """End every running cell, those that do not obey at once by force, and leave the cluster."""
        running = list(self._running)
        self._running.clear()
        try:
            with contextlib.suppress(self._ray.exceptions.RayError):  # a cluster that is gone runs nothing
                for reference in running:
                    self._ray.cancel(reference, force=False)
                if running:
                    _, stubborn = self._ray.wait(running, num_returns=len(running), timeout=_FAREWELL_S)
                    for reference in stubborn:
                        self._ray.cancel(reference, force=True)
                self._ray.kill(self._mailbox)
        finally:
            self._session.close()

    # -- cells -----------------------------------------------------------------------------------------------------

    def _collect(self, reference: Any) -> CellSummary | None:
        """Summary of a cell that has ended; None if it was lost and is handed out again."""
        task = self._running.pop(reference)
        errors = self._ray.exceptions
        try:
            summary: CellSummary = self._ray.get(reference)
        except (errors.RayTaskError, errors.TaskCancelledError) as error:
            return CellSummary(task.key, "failed", 0.0, _last_line(error))
        except errors.RayError as error:
            if not self._lost.again(task):
                return self._lost.given_up(task, _first_line(error))
            self.submit(task)
            return None
        return summary

    def _give_up(self) -> CellSummary:
        """Take back a cell for which there is no node any more."""
        reference, task = next(iter(self._running.items()))
        del self._running[reference]
        self._ray.cancel(reference, force=True)
        reason = f"NoNode: for {self._params.patience_s:g} s no node of the cluster had {self._share}"
        return CellSummary(task.key, "failed", 0.0, reason)

    def _relay_progress(self) -> None:
        """Pass on what running cells said, and ask for more; a mailbox that is gone only means silence."""
        if self._news is None:
            if time.monotonic() - self._heard > _POLL_S:
                self._news = self._mailbox.take.remote()
        elif self._ray.wait([self._news], timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):
                running = {task.key for task in self._running.values()}
                for key, (fraction, what) in self._ray.get(self._news).items():
                    if key in running:
                        self._setup.on_progress(key, fraction, what)
            self._news, self._heard = None, time.monotonic()

    # -- the cluster -----------------------------------------------------------------------------------------------

    def _nodes(self) -> list[Mapping[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _choose_device(self) -> str:
        asked = self._setup.device
        if asked not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device {asked!r}: Ray gives each cell its device; valid: auto, cpu, cuda")
        if asked != "auto":
            return asked
        there = any(node["Resources"].get("GPU", 0.0) > 0 for node in self._nodes())
        return "cuda" if self._setup.resources.gpus and there else "cpu"

    def _share_of_cell(self) -> _Share:
        asked = self._setup.resources
        gpus = (asked.gpus or 1.0) if self.device == "cuda" else 0.0
        gpus = math.ceil(gpus) if gpus > 1 else gpus  # Ray divides one accelerator, not several
        return _Share(CPU=asked.cpus, GPU=gpus, memory=round(asked.memory_gb * 1024**3))

    def _check_nodes(self) -> None:
        """Refuse a cluster on which cells would fail, or compute something else.

        Raises:
            UsageError: no node has room for a cell, or one with room is not fit for it; the message names it.
        """
        chosen = [node for node in self._nodes() if self._share.fits(node["Resources"])]
        if not chosen:
            sizes = "; ".join(sorted({_size(node["Resources"]) for node in self._nodes()}))
            raise UsageError(
                f"no node of the Ray cluster has {self._share}, which one cell needs; its nodes have {sizes}; change "
                f"'resources' in the suite, or --device"
            )
        found = self._inspect(chosen)
        # A node that died since it was listed is no obstacle, as long as another one is left.
        alive = {_node_name(node) for node in self._nodes()}
        problems = [line for node, report in found.items() if node in alive for line in _lines(node, report)]
        if problems:
            raise UsageError(f"the Ray cluster cannot run this: {'; '.join(problems)}")

    def _inspect(self, nodes: list[Mapping[str, Any]]) -> dict[str, list[str]]:
        """What is wrong with each node, by its name."""
        from robusteval.execution.nodes import NodeNeeds, inspect_node, problems_of

        asked: dict[str, tuple[Any, NodeNeeds]] = {}
        look = self._ray.remote(num_cpus=0, max_retries=0)(inspect_node)
        pinned = load_target("ray.util.scheduling_strategies:NodeAffinitySchedulingStrategy")
        for node in nodes:
            needs = NodeNeeds(self._setup.store_uri, self._setup.data, f"{node['NodeID'][:12]}-{secrets.token_hex(6)}")
            strategy = pinned(node_id=node["NodeID"], soft=False)
            asked[_node_name(node)] = look.options(scheduling_strategy=strategy).remote(needs), needs
        references = [reference for reference, _ in asked.values()]
        self._ray.wait(references, num_returns=len(references), timeout=self._params.check_s)
        found: dict[str, list[str]] = {}
        for name, (reference, needs) in asked.items():
            try:
                report: NodeReport = self._ray.get(reference, timeout=0.1)
                found[name] = problems_of(report, needs)
            except self._ray.exceptions.GetTimeoutError:
                found[name] = [f"does not answer within {self._params.check_s:g} s"]
            except self._ray.exceptions.RayError as error:
                found[name] = [f"cannot run a task of robusteval ({_last_line(error)}); install the same version there"]
        return found


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        if error.name != "ray":
            raise UsageError(f"--executor ray: Ray is installed but broken ({error})") from None
        raise UsageError("--executor ray: Ray is not installed; pip install 'robusteval[ray]'") from None
    return ray


def _lines(node: str, problems: list[str]) -> list[str]:
    return [f"node {node} {line}" for line in problems]


def _size(resources: Mapping[str, float]) -> str:
    return str(_Share(resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0)))


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().partition("\n")[0]


def _last_line(error: BaseException) -> str:
    """The line of a remote traceback that says what happened."""
    return (str(error) or type(error).__name__).strip().rpartition("\n")[2]


def _node_name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
