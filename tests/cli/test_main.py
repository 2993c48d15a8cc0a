from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robusteval.cli.main import app, main, run

COMMANDS = sorted(info.name or info.callback.__name__ for info in app.registered_commands if info.callback)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_all_commands_are_there() -> None:
    assert set(COMMANDS) >= {"run", "plan", "validate", "describe", "ls", "show", "doctor", "import-weights"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_ends_with_worked_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.strip() == "Examples:")
    examples = [line for line in lines[start + 1 :] if line.strip()]
    assert examples
    assert all(line.startswith("    ") for line in examples)
    assert examples[0].strip().startswith(f"robusteval {name}")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["ls", "attacks"], ["ls", "suites"]]
)
def test_what_needs_no_torch_does_not_import_it(arguments: list[str]) -> None:
    code = (
        "import sys, json; from robusteval.cli.main import run; code = run(sys.argv[1:]); "
        "print(json.dumps([code, [m for m in ('torch', 'pandas', 'timm', 'sklearn') if m in sys.modules]]))"
    )
    done = python(code, *arguments)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []], done.stderr


def test_results_are_shown_without_torch(finished: Path) -> None:
    code = (
        "import sys; from robusteval.cli.main import run; "
        "code = run(sys.argv[1:]); sys.exit(99 if 'torch' in sys.modules else code)"
    )
    done = python(code, "show", "micro", "--store", str(finished), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [row["method"] for row in json.loads(done.stdout)] == ["erm", "longer"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument 'SUITE'"),
        (["run", "digits", "--jbos", "2"], "No such option: --jbos"),
        (["run", "digits", "--jobs", "0"], "--jobs"),
        (["run", "digits", "--resume", "never"], "--resume"),
        (["run", "no-such-suite"], "unknown suite 'no-such-suite'"),
        (["plan", "smoke", "--only", "speed=1"], "unknown field 'speed'"),
        (["plan", "smoke", "--only", "label=nobody"], "matches no cell"),
        (["plan", "smoke", "--store", "ftp://bucket"], "scheme 'ftp' is not supported"),
        (["run", "smoke", "--executor", "rya"], "unknown executor 'rya'"),
        (["run", "smoke", "--device", "abacus"], "abacus"),
        (["run", "smoke", "--device", "meta"], "cannot be used"),
        (["run", "smoke", "--device", "cpu:7"], "is not on this machine"),
        (["plan", "smoke", "--only", "role=clean"], "role train, a_id, r_id@0, a_ood, r_ood@0"),
        (["plan", "smoke", "--only", "speed=1"], "fields: label, method, evaluator, seed, role"),
        (["plan", "smoke", "--store", "~nobody-of-that-name/x"], "no such user"),
        (["plan", "smoke", "--store", "/dev/null/x"], "/dev/null is a file"),
        (["plan", "smoke", "--store", "x" * 5000], "File name too long"),
        (["plan", "x" * 5000], "is not a suite name"),
        (["ls", "foo"], "'what': 'foo' is not one of"),
        (["describe", "rifft"], "did you mean 'rift'"),
        (["ls", "everything"], "everything"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTEVAL_STORE", str(tmp_path / "store"))
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert says in err


def test_a_bad_file_is_one_line_that_starts_with_its_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("name: bad\nversion: 1\nversion: 2\n")
    for verb in ("run", "plan"):
        assert run([verb, "bad.yaml"]) == 2
        out, err = capsys.readouterr()
        assert (out, err) == (
            "",
            "bad.yaml:3: duplicate key 'version'; it is on line 2 already, keep one\n",
        )


def test_an_internal_error_is_one_line_unless_a_traceback_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robusteval.planning import names

    monkeypatch.setattr(names, "packaged_suites", lambda: 1 / 0)
    assert run(["run", "digits"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "ZeroDivisionError" in err
    assert "-vv" in err
    assert run(["run", "digits", "-vv"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "smoke", "--store", "/proc/robusteval", "-q"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("error: /proc/robusteval")


def test_an_interrupt_is_exit_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from robusteval.planning import names

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(names, "packaged_suites", interrupt)
    assert run(["run", "digits"]) == 130


def test_main_ends_the_process_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["robusteval", "--version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0


def test_a_reader_that_has_had_enough_causes_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "robusteval.cli.main", "ls", "attacks", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert err == ""


@pytest.mark.parametrize("arguments", ["ls methods", "--help", "validate nosuch"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_cause_no_traceback_and_mix_no_output(arguments: str, closed: str) -> None:
    line = f"{sys.executable} -m robusteval.cli.main {arguments} {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if "nosuch" in arguments else 0)
    if "2>&-" in closed:
        assert done.stderr == ""


def test_a_terminal_of_few_characters_gets_what_it_can_show(finished: Path) -> None:
    line = [sys.executable, "-m", "robusteval.cli.main", "show", "micro", "--store", str(finished)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    out, err = capsys.readouterr()
    assert "Commands:" in out
    assert err == ""
