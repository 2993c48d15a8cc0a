"""The pytest plug-in: `robusteval_check(model)` passes, fails, or says that it could not have seen a regression.

Nothing of robusteval but this file is imported before a check runs, so a session that does not use it pays nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from robusteval.api.fast_gating import FastResult
    from robusteval.scoring.verdicts import ModelComparison

MARKER = "robusteval"
PROPERTY = "robusteval_comparison"
"""Name of the property of a test report that holds what a check found, as JSON."""
OPEN = "robusteval_inconclusive"
"""Name of the property of a test report whose check could not have seen a regression."""
USED = "robusteval_baseline"
"""Name of the property of a test report that names the baseline a check asked for."""
Found = TypeVar("Found", "ModelComparison", "FastResult")
_FOLDER = "robusteval_baselines"
_HELP = (
    "robusteval(suite, baseline, cells, margin, sensitivity, alpha, unit, n, ...): defaults for robusteval_check and "
    "robusteval_compare in this test"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the plug-in."""
    group = parser.getgroup("robusteval", "robustness regression checks")
    group.addoption(
        "--robusteval-update",
        nargs="?",
        const="yes",
        choices=("yes", "force"),
        help="Accept what the checks find as their baselines; `=force` under CI, and for new reasons for doubt.",
    )
    group.addoption(
        "--robusteval-only-stored", action="store_true", help="Never compute: a cell without a stored result fails."
    )
    group.addoption(
        "--robusteval-limit", type=int, metavar="N", help="Measure at most N examples a domain, and compare on those."
    )
    group.addoption("--robusteval-strict", action="store_true", help="An inconclusive check fails.")
    group.addoption("--robusteval-report", metavar="FILE", help="Write what every check found as JSON.")
    group.addoption("--robusteval-store", metavar="DIR", help="Keep results between sessions; not kept by default.")
    parser.addini(_FOLDER, "folder of baselines, relative to the root of the project", default="tests/baselines")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse to accept baselines where nobody looks at them."""
    config.addinivalue_line("markers", _HELP)
    # The environment is read here as it is in the command line: this is where a user's session begins.
    if config.getoption("--robusteval-update") == "yes" and os.environ.get("CI", "") not in ("", "0", "false"):
        raise pytest.UsageError(
            "--robusteval-update would accept whatever this build finds; run it where you can look at the difference "
            "(or --robusteval-update=force)"
        )
    limit = config.getoption("--robusteval-limit")
    if limit is not None and limit < 1:
        raise pytest.UsageError(f"--robusteval-limit {limit}: measure at least 1 example a domain")
    report = config.getoption("--robusteval-report")
    if report and Path(report).is_dir():
        raise pytest.UsageError(f"--robusteval-report {report}: is a folder; give a file, such as {report}/report.json")
    if config.getoption("--robusteval-only-stored") and not _store_folder(config):
        raise pytest.UsageError("--robusteval-only-stored needs results to look at: --robusteval-store DIR")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Reporter(config), "robusteval-reporter")


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[Any, ...] | None:
    """Count a test whose check decided nothing as neither passed nor failed, so that it never looks green."""
    if report.when == "call" and report.passed and any(name == OPEN for name, _ in report.user_properties):
        return "inconclusive", "?", ("INCONCLUSIVE", {"yellow": True})
    return None


def _store_folder(config: pytest.Config) -> str | None:
    found: str | None = config.getoption("--robusteval-store") or os.environ.get("ROBUSTEVAL_STORE")
    return found


@pytest.fixture(scope="session")
def robusteval_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of results that all checks of a session share, the workers of pytest-xdist included."""
    kept = _store_folder(request.config)
    if kept:
        return Path(kept)
    base = tmp_path_factory.getbasetemp()
    return (base.parent if hasattr(request.config, "workerinput") else base) / "robusteval-store"


@pytest.fixture(scope="session")
def robusteval_baselines(request: pytest.FixtureRequest) -> Path:
    """Folder of baselines: `tests/baselines`, or what the ini option `robusteval_baselines` says."""
    return request.config.rootpath / str(request.config.getini(_FOLDER))


@pytest.fixture
def robusteval_compare(
    request: pytest.FixtureRequest, robusteval_store: Path, robusteval_baselines: Path
) -> Callable[..., ModelComparison]:
    """A function that compares a model with a baseline and asserts nothing about the verdict.

    Call it as `robusteval_compare(model, suite="digits", baseline="main")`; the other arguments are those of
    `robusteval.compare` (`margin`, `sensitivity`, `alpha`, `unit`, `cells`) and of `robusteval.evaluate` (`n`, `mean`,
    `std`, `value_range`, `seeds`, `device`). Arguments of the marker are the defaults.
    """
    return _caller(request, robusteval_store, robusteval_baselines, asserting=False)


@pytest.fixture
def robusteval_check(
    request: pytest.FixtureRequest, robusteval_store: Path, robusteval_baselines: Path
) -> Callable[..., ModelComparison]:
    """Like `robusteval_compare`, and the test fails if the model regressed or became suspect."""
    return _caller(request, robusteval_store, robusteval_baselines, asserting=True)


@pytest.fixture
def robusteval_fast_check(
    request: pytest.FixtureRequest, robusteval_store: Path, robusteval_baselines: Path
) -> Callable[..., FastResult]:
    """A function that fails the test if one attacked cell surely regressed, in about thirty passes an example.

    Call it as `robusteval_fast_check(model, suite="digits", baseline="main", cell="r_id", passes=30)`. It replays the
    baseline's stored adversarial images first. It never accepts anything, and a verdict `clear` is no pass: run
    `robusteval_check` before a release.
    """
    node = request.node

    def call(model: Any, *, cell: str = "r_id", passes: int = 30, **arguments: Any) -> FastResult:
        from robusteval.testing.checks import Check, run_fast_check

        __tracebackhide__ = True

        def run() -> tuple[FastResult, ModelComparison]:
            check = Check.read(robusteval_baselines, robusteval_store, _written(node, arguments))
            node.user_properties.append((USED, check.folder.name))
            found = run_fast_check(check, model, cell=cell, passes=passes)
            return found, found.comparison

        return _failing(node, run, asserting=True)

    return call


def _caller(
    request: pytest.FixtureRequest, store: Path, baselines: Path, *, asserting: bool
) -> Callable[..., ModelComparison]:
    config, node = request.config, request.node

    def call(model: Any, **arguments: Any) -> ModelComparison:
        from robusteval.testing.checks import Check, CheckOptions, run_check

        __tracebackhide__ = True
        options = CheckOptions(
            update=config.getoption("--robusteval-update"),
            only_stored=config.getoption("--robusteval-only-stored"),
            limit=config.getoption("--robusteval-limit"),
            strict=config.getoption("--robusteval-strict"),
        )

        def run() -> tuple[ModelComparison, ModelComparison]:
            check = Check.read(baselines, store, _written(node, arguments))
            node.user_properties.append((USED, check.folder.name))
            found = run_check(check, model, options, asserting=asserting)
            return found, found

        return _failing(node, run, asserting=asserting and options.update is None)

    return call


def _written(node: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a check, those of the marker under them."""
    from robusteval.schema.errors import UsageError

    marker = node.get_closest_marker(MARKER)
    if marker is not None and marker.args:
        raise UsageError(
            f"marker {MARKER}{marker.args}: write names, such as {MARKER}(suite='digits', baseline='main')"
        )
    default = {"baseline": getattr(node, "originalname", None) or node.name}
    return {**default, **(marker.kwargs if marker else {}), **arguments}


def _failing(node: Any, run: Callable[[], tuple[Found, ModelComparison]], *, asserting: bool) -> Found:
    """Run a check, note what it found, and fail the test with one message and no traceback of the plug-in."""
    from robusteval.schema.errors import RobustevalError
    from robusteval.testing.checks import RejectedError

    __tracebackhide__ = True
    comparison: ModelComparison | None
    try:
        found, comparison = run()
        problem = ""
    except RejectedError as rejected:
        comparison, problem = rejected.comparison, str(rejected)
    except RobustevalError as error:
        if getattr(error, "__notes__", None):
            raise  # the model was being measured, so its own frames matter
        comparison, problem = None, str(error)
    if comparison is not None:
        verdict = comparison.verdict if problem else found.verdict
        _note(node, comparison, verdict)
        if asserting and verdict == "inconclusive":
            node.user_properties.append((OPEN, comparison.base))
    if problem or comparison is None:
        pytest.fail(problem, pytrace=False)
    return found


def _note(node: pytest.Item, comparison: ModelComparison, verdict: str) -> None:
    """Leave the result where JUnit files and the controller of pytest-xdist find it."""
    from robusteval.scoring.verdict_text import to_json

    node.user_properties.append(("robusteval_verdict", verdict))
    node.user_properties.append((PROPERTY, json.dumps({**to_json(comparison), "verdict": verdict})))


class _Reporter:
    """Collects what the checks of all workers found."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.found: list[dict[str, Any]] = []
        self.used: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == USED:
                self.used.add(str(value))
            if name == PROPERTY:
                self.found.append({"test": report.nodeid, "outcome": report.outcome, **json.loads(str(value))})

    def pytest_sessionfinish(self) -> None:
        target = self.config.getoption("--robusteval-report")
        if target:
            path = Path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(sorted(self.found, key=lambda entry: entry["test"]), indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        lines = list(self._lines())
        if lines:
            terminalreporter.section("robusteval")
            for line in lines:
                terminalreporter.line(line)

    def _lines(self) -> Iterator[str]:
        for entry in self.found:
            if entry["verdict"] == "inconclusive":
                open_cells = [cell for cell in entry["cells"] if cell["verdict"] == "inconclusive"]
                reasons = "; ".join(f"{cell['title']}: {cell['reason']}" for cell in open_cells)
                yield f"{entry['test']}: inconclusive ({reasons})"
        if self.found:
            counts: dict[str, int] = {}
            for entry in self.found:
                counts[entry["verdict"]] = counts.get(entry["verdict"], 0) + 1
            yield ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        if unused := self._unused():
            yield f"no check of this session used the baselines {', '.join(unused)}; remove those that are not needed"

    def _unused(self) -> list[str]:
        """Baselines that no test asked for, if all tests were run."""
        option = self.config.option
        chosen = option.keyword or option.markexpr or self.config.args_source is pytest.Config.ArgsSource.ARGS
        if not self.used or chosen:
            return []
        folder = self.config.rootpath / str(self.config.getini(_FOLDER))
        return sorted(path.name for path in folder.glob("*") if path.is_dir() and path.name not in self.used)
