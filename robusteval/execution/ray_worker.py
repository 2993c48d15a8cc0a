"""What runs inside the workers of a Ray cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from robusteval.execution.events import CellSummary, CellTask
from robusteval.execution.executors import RUN_CELL
from robusteval.execution.nodes import other_software, versions
from robusteval.schema.registry import load_target

_REPORT_S = 0.5
"""Seconds between two reports of a cell."""


class Mailbox:
    """The last thing that each running cell said; an actor, so that workers and driver need no other connection."""

    def __init__(self) -> None:
        self._news: dict[str, tuple[float, str]] = {}

    def put(self, key: str, fraction: float, what: str) -> None:
        """Take what a cell says."""
        self._news[key] = (fraction, what)

    def take(self) -> dict[str, tuple[float, str]]:
        """Give out what was said since the last time."""
        news, self._news = self._news, {}
        return news


def run_task(task: CellTask, store_uri: str, driver: Mapping[str, str], mailbox: Any) -> CellSummary:
    """The task of one cell. A node may have joined after the check, so its versions are looked at again.

    Args:
        task: the cell.
        store_uri: where its result goes.
        driver: versions on the driver's machine.
        mailbox: handle of the actor that takes progress.
    """
    wrong = other_software(driver, versions())
    if wrong is not None:
        node = load_target("ray.util:get_node_ip_address")()
        return CellSummary(task.key, "failed", 0.0, f"WrongNode: node {node} {wrong}")
    last = float("-inf")
    errors = load_target("ray.exceptions:RayError")

    def report(fraction: float, what: str) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_S:
            last = time.monotonic()
            # An error here would be stored as the cell's own.
            with contextlib.suppress(errors):
                mailbox.put.remote(task.key, fraction, what)

    summary: CellSummary = load_target(RUN_CELL)(task, store_uri, report)
    return summary
