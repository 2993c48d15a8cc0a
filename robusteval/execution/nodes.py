"""What a machine must have to run cells for another one: the same software, the data, and the store.

The check runs where the cells would, before any of them, so that a cluster on which a run would fail or compute
something else is refused with a line that says why.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from robusteval.data.slices import open_dataset
from robusteval.schema.cells import DataSlice
from robusteval.schema.errors import DataError, RobustevalError
from robusteval.store.provenance import package_versions
from robusteval.store.store import Store

SOURCE = "source of robusteval"


@dataclass(frozen=True)
class NodeNeeds:
    """What the cells of a run need on every machine.

    Attributes:
        store_uri: where results go.
        data: a slice of every dataset.
        probe: name of a blob that the machine writes into the store, to show that it reaches it.
    """

    store_uri: str
    data: tuple[DataSlice, ...]
    probe: str


@dataclass(frozen=True)
class NodeReport:
    """What a machine has.

    Attributes:
        software: versions of what numbers depend on.
        problems: what is missing, one line each.
    """

    software: Mapping[str, str]
    problems: tuple[str, ...] = ()


@cache
def versions() -> dict[str, str]:
    """Versions that must be equal on all machines of a run: python, robusteval, torch."""
    packages = {name: package_versions((name,)).get(name, "none") for name in ("robusteval", "torch")}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **packages}


def software() -> dict[str, str]:
    """What must be equal on all machines when a run starts: the versions, and the files of robusteval itself."""
    return {**versions(), SOURCE: _source_digest()}


def inspect_node(needs: NodeNeeds) -> NodeReport:
    """Look at this machine, and leave the probe in the store."""
    problems = [line for data in needs.data if (line := _missing_data(data))]
    try:
        Store.open(needs.store_uri).backend.write(probe_path(needs.probe), needs.probe.encode())
    except (OSError, RobustevalError) as error:
        problems.append(f"cannot write to the store {needs.store_uri} ({_first_line(error)})")
    return NodeReport(software(), tuple(problems))


def problems_of(report: NodeReport, needs: NodeNeeds) -> list[str]:
    """Why cells cannot run on the machine that sent `report`, one line each; empty if they can.

    Takes the machine's probe out of the store.
    """
    problems = [line] if (line := other_software(software(), report.software)) else []
    problems += report.problems
    backend = Store.open(needs.store_uri).backend
    if backend.read(probe_path(needs.probe)) is not None:
        backend.delete(probe_path(needs.probe))
    elif not any(needs.store_uri in line for line in report.problems):
        problems.append(
            f"has a store of its own at {needs.store_uri}; results must go to a folder that all machines share, or to "
            f"an object store"
        )
    return problems


def other_software(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """In what another machine's software differs from ours; None if in nothing."""
    different = {name: version for name, version in ours.items() if theirs.get(name) != version}
    if set(different) == {SOURCE}:
        return f"has robusteval {ours['robusteval']} with other source files; install the same on every node"
    different.pop(SOURCE, None)
    if not different:
        return None
    told = ", ".join(f"{name} {theirs.get(name, 'none')} (here {version})" for name, version in different.items())
    return f"has {told}; install the same versions on every node"


def probe_path(probe: str) -> str:
    """Where a probe lies in the store."""
    return f"probes/{probe}"


def _missing_data(data: DataSlice) -> str | None:
    try:
        revision = open_dataset(data.dataset).revision
    except DataError as error:
        return f"does not have the dataset {data.dataset.name!r} ({_first_line(error)})"
    except (RobustevalError, OSError, ImportError) as error:
        return f"cannot open the dataset {data.dataset.name!r} ({_first_line(error)})"
    if revision != data.revision:
        return (
            f"has another dataset {data.dataset.name!r}: its content is {revision[:16]}, the plan's is "
            f"{data.revision[:16]}"
        )
    return None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def _source_digest() -> str:
    """Digest of every Python file of this package."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
