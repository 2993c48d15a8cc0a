"""The command `robusteval`: what exists, and what happens to errors.

Imports of anything heavy happen inside command bodies, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Self

import typer

from robusteval.cli import (
    baselines,
    boards,
    catalogue,
    compare,
    data,
    doctor,
    evaluate,
    results,
    status,
    submit,
    suites,
    verifying,
    weights,
)
from robusteval.cli import examples as example_rows
from robusteval.cli.options import examples
from robusteval.schema.errors import RobustevalError, SpecError

INTERRUPTED = 130

app = typer.Typer(
    name="robusteval",
    help="Evaluate adversarial robustness and domain generalization of image classifiers: train, attack, shift, score.",
    epilog=examples("robusteval run digits", "robusteval show digits --format md", "robusteval ls attacks"),
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(version("robusteval"))
        except PackageNotFoundError:
            print("unknown (not installed)")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    _verbose: Annotated[int, typer.Option("-v", count=True, help="Twice: tracebacks.", show_default=False)] = 0,
) -> None:
    """Evaluate adversarial robustness and domain generalization of image classifiers: train, attack, shift, score."""
    if context.invoked_subcommand is None:
        print(context.get_help())


for _commands in (
    suites,
    catalogue,
    results,
    status,
    evaluate,
    compare,
    baselines,
    example_rows,
    weights,
    data,
    doctor,
    boards,
    verifying,
    submit,
):
    _commands.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    _prepare_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    code = run(given)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has had enough; nothing is left to say to them when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)


def _prepare_streams() -> None:
    """Make closed streams swallow what is written, and open ones write every character somehow."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays open
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(arguments: list[str]) -> int:
    """Run the command line; every expected error becomes one line on standard error.

    Returns:
        The exit code: 0 ok, 1 internal error, 2 usage or bad file, 3 cells failed, 130 interrupted.
    """
    with _Interrupts() as interrupts:
        try:
            code = _run(arguments)
        except Exception as error:  # noqa: BLE001 - the outermost frame: one line instead of a traceback
            # Libraries swallow an interrupt that comes while they are imported, and stumble over something else then.
            code = _interrupted() if interrupts.seen else _unexpected(error, arguments)
    return INTERRUPTED if interrupts.seen else code


class _Interrupts:
    """Notices Ctrl-C, whatever becomes of the `KeyboardInterrupt`; only the main thread may listen to signals."""

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, *_: object) -> None:
        self.seen = True
        raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    try:
        result = app(args=arguments, prog_name="robusteval", standalone_mode=False)
    except RobustevalError as error:
        # A SpecError starts with `file:line:`, which editors and people click on; nothing goes before it.
        _complain(str(error) if isinstance(error, SpecError) else f"error: {error}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        return 1
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    _complain("interrupted; what was finished is in the store")
    return INTERRUPTED


def _unexpected(error: Exception, arguments: list[str]) -> int:
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "robusteval"
        # Typer leaves pydantic's opening words in what it says about an enum.
        _complain(f"error: {usage().replace('Value error, ', '')} ({command} --help)")
        return 2
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"error: {place}{error.strerror}; what was stored before is intact")
        return 1
    if _wants_traceback(arguments):
        traceback.print_exception(error)
        return 1
    if notes := [note for note in getattr(error, "__notes__", ()) if note.startswith("robusteval: ")]:
        _complain(f"error: {type(error).__name__} in the model: {error}; {notes[0].removeprefix('robusteval: ')}")
        return 3
    what = str(error) or "no message"
    _complain(f"error: internal error, {type(error).__name__}: {what}; add -vv for the traceback, and please report it")
    return 1


def _wants_traceback(arguments: list[str]) -> bool:
    return sum(len(word) - 1 for word in arguments if re.fullmatch(r"-v+", word)) >= 2


def _complain(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)


if __name__ == "__main__":
    main()
