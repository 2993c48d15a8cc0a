from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from robusteval.cli.render import LineListener, LiveListener, count, duration, listener, print_facts, print_table
from robusteval.execution.events import CellSummary, SilentListener


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")],
)
def test_a_time_is_written_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1500, "1.5 k"), (2.5e6, "2.5 M"), (3e9, "3.0 G")]
)
def test_a_count_has_a_unit_prefix(number: float, text: str) -> None:
    assert count(number) == text


def test_a_table_in_a_pipe_is_whole_and_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 150
    print_table(["name", "value"], [[long, "1"], ["[bold]", "20"]], ["A note. " + long], title="T")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "T"
    assert lines[3] == f"{long}       1"
    assert lines[4].startswith("[bold]")
    assert lines[5] == "A note. " + long


def test_facts_keep_the_lines_of_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("a", "one\ntwo"), ("long", "")])
    assert capsys.readouterr().out.splitlines() == ["  a     one", "        two", "  long  "]


def test_without_a_terminal_each_finished_cell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = LineListener()
    shown.tick(0, 2, None)
    shown.started("k1", "erm seed 0: train")
    shown.progressed("k1", 0.5, "epoch 1")
    shown.finished(CellSummary("k1", "ok", 61.0, "validation accuracy 97.0 %"), "erm seed 0: train")
    shown.tick(1, 2, 30.0)
    shown.finished(CellSummary("k2", "failed", 0.5, "ValueError: two\nlines"), "erm seed 0: clean")
    shown.tick(2, 2, 0.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "[0/2] cells",
        "[1/2] erm seed 0: train: validation accuracy 97.0 % (1 min 01 s); about 30 s left",
        "[2/2] erm seed 0: clean: FAILED ValueError: two lines (0.5 s)",
    ]


def test_without_a_terminal_a_long_silence_is_broken_by_what_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    shown = LineListener()
    shown.tick(0, 2, None)
    shown.started("k1", "erm seed 0: attacked (linf-0.1)")
    shown.progressed("k1", 0.5, "pgd")
    now += 30
    shown.tick(0, 2, 90.0)
    now += 31
    shown.tick(0, 2, 60.0)
    assert capsys.readouterr().err.splitlines() == [
        "[0/2] cells",
        "[0/2] erm seed 0: attacked (linf-0.1) (pgd, 50 %); about 1 min 00 s left",
    ]


def test_on_a_terminal_running_cells_what_is_left_and_the_time_are_shown() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:.2f}"), TextColumn("{task.fields[note]}"))
    progress = Progress(*columns, console=console, auto_refresh=False)
    shown = LiveListener(progress)
    shown.tick(0, 3, None)
    shown.started("k1", "erm [seed] 0: train")
    shown.progressed("k1", 0.25, "epoch 3")
    shown.progressed("unknown", 0.5, "ignored")
    shown.tick(1, 3, 125.4)
    tasks = {task.description: task for task in progress.tasks}
    assert tasks["all cells"].fields["note"] == "2 left, about 2 min 05 s"
    assert tasks["all cells"].completed == 1.25
    assert tasks["erm \\[seed] 0: train"].completed == 0.25
    shown.finished(CellSummary("k1", "ok", 1.0, "fine"), "erm [seed] 0: train")
    assert list({task.description for task in progress.tasks}) == ["all cells"]
    assert "erm [seed] 0: train: fine (1.0 s)" in screen.getvalue()


def test_quiet_shows_nothing() -> None:
    with listener(quiet=True, verbose=False) as shown:
        assert isinstance(shown, SilentListener)


def test_numbers_are_not_cut_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    header = ["method", "first accuracy", "second accuracy", "mark"]
    print_table(header, [["a-rather-long-row", "95.0 ±16.8 (±12.3)", "15.0 ±15.4 (±10.1)", "*"]])
    out = capsys.readouterr().out
    assert "95.0 ±16.8 (±12.3)" in out
    assert "15.0 ±15.4 (±10.1)" in out
