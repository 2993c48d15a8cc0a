"""Cells as jobs of a SLURM cluster, through submitit; results written by the job, only a summary read back.

A job that SLURM ends for time or preempts is put back into SLURM's queue and goes on from the cell's scratch space. A
job that vanished is submitted again a few times; what is in the store by then decides whether its cells run.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlparse

from pydantic import Field

from robusteval.execution.events import CellSummary, CellTask
from robusteval.execution.executors import RUN_CELL, ExecutorSetup, cpu_count
from robusteval.execution.lost import LostCells
from robusteval.schema.errors import UsageError
from robusteval.schema.params import checked_params
from robusteval.schema.registry import load_target
from robusteval.schema.types import Frozen

_JOBS = 256
"""Jobs at a time, if the user does not say."""


class Params(Frozen):
    """Settings of the SLURM executor."""

    cluster: Literal["slurm", "local", "debug"] = "slurm"
    """`local` runs the jobs as processes of this machine, `debug` in this process."""
    folder: str | None = None
    """Where submitit keeps jobs and logs, on a disk that all nodes share; by default `slurm` in the store's folder."""
    partition: str | None = None
    """Partition."""
    account: str | None = None
    """Account."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that a node must have."""
    minutes: Annotated[int, Field(gt=0)] = 240
    """Time limit of a job."""
    cells_per_job: Annotated[int, Field(gt=0)] = 1
    """Cells that one job runs, one after the other; more for cells that are shorter than a job's start."""
    resubmit: Annotated[int, Field(ge=0)] = 3
    """How often a cell is tried again whose job vanished."""
    poll_s: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between two looks at the jobs."""


class SlurmExecutor:
    """Runs cells as SLURM jobs.

    Args:
        setup: what the run needs.

    Raises:
        UsageError: submitit or SLURM is not there, or a setting is wrong.
    """

    def __init__(self, setup: ExecutorSetup) -> None:
        if setup.address is not None:
            raise UsageError("--address is not for slurm; its commands know their cluster")
        self._setup = setup
        self._params = checked_params("executor 'slurm'", Params, setup.options)
        self._submitit = _import_submitit()
        if self._params.cluster == "slurm" and shutil.which("sbatch") is None:
            raise UsageError(
                "--executor slurm: there is no sbatch on this machine; run it on a login node of the cluster, or with "
                "--executor-option cluster=local"
            )
        self.device = self._choose_device()
        self.slots = self._choose_slots()
        self._lost = LostCells(self._params.resubmit)
        self._jobs: dict[Any, list[CellTask]] = {}
        self._queue: deque[CellTask] = deque()
        self._ended: deque[CellSummary] = deque()
        self._executor = self._submitit.AutoExecutor(folder=self._folder(), cluster=self._params.cluster)
        self._executor.update_parameters(**self._parameters())

    def submit(self, task: CellTask) -> None:
        """Queue a cell; what is queued goes to SLURM together, in one call, when the caller waits."""
        self._queue.append(task)

    def wait(self) -> CellSummary:
        """Block until some cell has ended."""
        while True:
            self._flush()
            for job in [job for job in self._jobs if job.done()]:
                self._collect(job)
            if self._ended:
                return self._ended.popleft()
            if not self._queue:
                time.sleep(self._params.poll_s)

    def stop(self) -> None:
        """Cancel all jobs; the store stays intact, running cells keep their scratch."""
        for job in self._jobs:
            job.cancel(check=False)
        self._jobs.clear()
        self._queue.clear()

    def _flush(self) -> None:
        if not self._queue:
            return
        tasks = list(self._queue)
        self._queue.clear()
        size = self._params.cells_per_job
        groups = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        driver: Mapping[str, str] = load_target("robusteval.execution.nodes:versions")()
        with self._executor.batch():
            jobs = [self._executor.submit(_Cells(), group, self._setup.store_uri, driver) for group in groups]
        self._jobs.update(zip(jobs, groups, strict=True))

    def _collect(self, job: Any) -> None:
        """Take the summaries of a job that has ended, or hand its cells out again."""
        tasks = self._jobs.pop(job)
        error = job.exception()
        if error is None:
            self._ended.extend(job.result())
            _clean(job)
        elif isinstance(error, self._submitit.core.utils.FailedJobError):
            reason = _last_line(job.stderr() or str(error))
            self._ended.extend(CellSummary(task.key, "failed", 0.0, reason) for task in tasks)
        else:
            reason = f"job {job.job_id} ended without a result ({job.state}); its log is {job.paths.stderr}"
            again = [self._lost.again(task) for task in tasks]
            self._queue.extend(task for task, yes in zip(tasks, again, strict=True) if yes)
            given_up = [task for task, yes in zip(tasks, again, strict=True) if not yes]
            self._ended.extend(self._lost.given_up(task, reason) for task in given_up)

    # -- settings --------------------------------------------------------------------------------------------------

    def _choose_device(self) -> str:
        if self._params.cluster != "slurm":
            device: str = load_target("robusteval.execution.device:resolve_device")(self._setup.device)
            return device
        if self._setup.device not in ("auto", "cpu", "cuda"):
            raise UsageError(
                f"--device {self._setup.device!r}: SLURM gives each job its device; valid: auto, cpu, cuda"
            )
        return ("cuda" if self._setup.resources.gpus else "cpu") if self._setup.device == "auto" else self._setup.device

    def _choose_slots(self) -> int:
        here = {"debug": 1, "local": max(1, cpu_count() // self._setup.resources.cpus), "slurm": _JOBS}
        jobs = self._setup.jobs or here[self._params.cluster]
        return min(jobs * self._params.cells_per_job, self._setup.cells)

    def _folder(self) -> Path:
        place = urlparse(self._setup.store_uri)
        if self._params.folder is None and place.scheme != "file":
            raise UsageError(
                "--executor slurm: a store in a bucket has no room for the files of jobs; give a folder that all nodes "
                "share, as --executor-option folder=PATH"
            )
        folder = Path(self._params.folder or Path(unquote(place.path)) / "slurm").expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o022:
            raise UsageError(
                f"--executor slurm: other users can write to {folder}, and submitit's job files run as you; "
                f"chmod go-w it, or give another one as --executor-option folder=PATH"
            )
        return folder

    def _parameters(self) -> dict[str, Any]:
        asked = self._setup.resources
        gpus = math.ceil(asked.gpus or 1) if self.device.startswith("cuda") else 0
        return {
            "name": "robusteval",
            "timeout_min": self._params.minutes,
            "cpus_per_task": asked.cpus,
            "mem_gb": asked.memory_gb,
            "gpus_per_node": gpus or None,
            "slurm_partition": self._params.partition,
            "slurm_account": self._params.account,
            "slurm_qos": self._params.qos,
            "slurm_constraint": self._params.constraint,
            "slurm_array_parallelism": self._setup.jobs or _JOBS,
        }


class _Cells:
    """What a job does; submitit asks the object what to do with a job that SLURM is about to end."""

    def __call__(self, tasks: list[CellTask], store_uri: str, driver: Mapping[str, str]) -> list[CellSummary]:
        """Run cells one after the other."""
        from robusteval.execution.nodes import other_software, versions

        wrong = other_software(driver, versions())
        if wrong is not None:
            return [CellSummary(task.key, "failed", 0.0, f"WrongNode: the node of this job {wrong}") for task in tasks]
        run_cell = load_target(RUN_CELL)
        return [run_cell(task, store_uri, _silent) for task in tasks]

    def checkpoint(self, *arguments: Any) -> Any:
        """The same job again: cells that have results are not run, and the others go on from their scratch space."""
        return _import_submitit().helpers.DelayedSubmission(self, *arguments)


def _silent(fraction: float, what: str) -> None:
    """Jobs have no way to say how far they are but the store."""


def _import_submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        if error.name != "submitit":
            raise UsageError(f"--executor slurm: submitit is installed but broken ({error})") from None
        raise UsageError("--executor slurm: submitit is not installed; pip install 'robusteval[slurm]'") from None
    return submitit


def _clean(job: Any) -> None:
    """Delete the files of a job that went well; those of one that did not are there to look at."""
    paths = job.paths
    for path in (paths.submitted_pickle, paths.result_pickle, paths.stdout, paths.stderr):
        with contextlib.suppress(OSError):
            path.unlink()


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
