"""Running a plan: the worker entry, the runner, and the executors by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robusteval.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from robusteval.execution.executors import Executor, ExecutorSetup

EXECUTORS: Registry[Callable[[ExecutorSetup], Executor]] = Registry(
    "executor",
    {
        "serial": ("robusteval.execution.executors:Serial", "one cell after the other, in this process"),
        "processes": ("robusteval.execution.executors:Processes", "worker processes on this machine"),
        "ray": ("robusteval.execution.ray:RayExecutor", "a Ray cluster, or a local one for the run; extra ray"),
        "slurm": ("robusteval.execution.slurm:SlurmExecutor", "jobs of a SLURM cluster, through submitit; extra slurm"),
    },
)
