"""From a YAML file to a checked suite, or to one line for everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from robusteval.planning.checking import Findings
from robusteval.planning.checks import check_suite
from robusteval.planning.names import find_suite, shown_path
from robusteval.planning.ood import OpenedData
from robusteval.planning.opening import anchored
from robusteval.planning.protocols import apply_protocol
from robusteval.planning.targets import load_protocol
from robusteval.schema.plans import ProtocolUse
from robusteval.schema.problems import explain
from robusteval.schema.reading import read_source
from robusteval.schema.source import Problem, Source, SourceError, shorten
from robusteval.schema.specs import SuiteSpec

if TYPE_CHECKING:
    from robusteval.data.imageset import Dataset


@dataclass(frozen=True)
class LoadedSuite:
    """A suite that was found to be right.

    Attributes:
        spec: what the file says, with relative paths taken from the file's folder.
        source: the file with its line numbers.
        dataset: the opened dataset.
        ood: what the out-of-distribution half is measured on, if not other domains of `dataset`.
        protocol: the protocol it follows, and where it does not.
        weights: start checkpoints by what the suite calls them.
    """

    spec: SuiteSpec
    source: Source
    dataset: Dataset[Any] = field(repr=False)
    ood: OpenedData | None = field(repr=False, default=None)
    protocol: ProtocolUse | None = None
    weights: dict[str, Path] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def digest(self) -> str:
        """SHA-256 of the file's text."""
        return self.source.digest


def load_suite(name_or_path: str | Path) -> LoadedSuite:
    """Read and check a suite.

    Args:
        name_or_path: the name of a packaged suite, or the path of a YAML file.

    Raises:
        SourceError: something is wrong with the file; its `problems` hold everything, one line each.
        UsageError: there is no suite of that name.
    """
    source = open_source(name_or_path)
    problems, spec = _validate(source)
    findings = check_suite(source) if isinstance(source.value, dict) else Findings()
    problems += findings.problems
    if problems or spec is None or findings.dataset is None:
        raise SourceError(source.shown, problems or _whole(source))
    use = None
    if spec.protocol is not None:
        spec, use = apply_protocol(spec, load_protocol(spec.protocol), len(findings.dataset.domains))
    train = spec.train.model_copy(update={"data": anchored(spec.train.data, source.path)})
    return LoadedSuite(
        spec=spec.model_copy(update={"train": train}),
        source=source,
        dataset=findings.dataset,
        ood=findings.ood,
        protocol=use,
        weights=findings.weights,
    )


def read_spec(name_or_path: str | Path) -> SuiteSpec:
    """Read a suite without checking names, parameters and data, and without importing what they stand for.

    Raises:
        SourceError: the file is not a suite.
        UsageError: there is no suite of that name.
    """
    source = open_source(name_or_path)
    problems, spec = _validate(source)
    if spec is None:
        raise SourceError(source.shown, problems or _whole(source))
    return spec


def open_source(name_or_path: str | Path) -> Source:
    """Find and parse a suite file."""
    path = name_or_path if isinstance(name_or_path, Path) else find_suite(name_or_path)
    return read_source(path, shown_path(path))


def _validate(source: Source) -> tuple[list[Problem], SuiteSpec | None]:
    if not isinstance(source.value, dict):
        text = f"a suite is a map with name, version, train, methods and evaluate, not {shorten(source.value)}"
        return [Problem(source.line(()), text)], None
    try:
        return [], SuiteSpec.model_validate(source.value)
    except ValidationError as error:
        # What is wrong with the suite as a whole only shows when all parts are right; the checks know its line.
        parts = [detail for detail in error.errors() if detail["loc"]]
        return (explain(error, SuiteSpec, source) if parts else []), None


def _whole(source: Source) -> list[Problem]:
    """What is wrong with the suite as a whole (rows, seeds, baseline), where no check has found the line of it."""
    try:
        SuiteSpec.model_validate(source.value)
    except ValidationError as error:
        return explain(error, SuiteSpec, source)
    return [Problem(1, "the dataset cannot be opened")]
