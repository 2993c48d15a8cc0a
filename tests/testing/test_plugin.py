from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import entry_points

import pytest

from robusteval.scoring.baselines import load_baseline, load_obtained


def installed():
    """Whether pytest finds the plug-in by itself."""
    return any(point.name == "robusteval" for point in entry_points(group="pytest11"))


def _files(project):
    return sorted(path.name for path in (project.path / "tests/baselines/main").glob("*.json"))


def test_a_missing_baseline_fails_with_the_command_that_accepts_it(project, check):
    result = check()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no baseline 'main' for a_id yet*robusteval baseline save main --dir *"])
    assert _files(project) == ["a_id.obtained.json"]


def test_an_accepted_baseline_passes_and_a_drop_fails_with_a_table(project, check):
    check("--robusteval-update").assert_outcomes(passed=1)
    assert _files(project) == ["a_id.json"]
    check().assert_outcomes(passed=1)
    result = check(lost=8.0)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*Reader against baseline main: regressed*",
            "cell*base*candidate*difference*losses*gains*verdict",
            "A_id *regressed",
            "*accept it with: robusteval baseline save main*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert _files(project) == ["a_id.json", "a_id.obtained.json"]
    check().assert_outcomes(passed=1)


def test_obtained_files_of_the_whole_suite_go_when_it_passes(project, check):
    body = (
        "import reader\ndef test_reader(robusteval_check):\n"
        "    robusteval_check(reader.load(LOST), suite='./shop.yaml', baseline='main')\n"
    )
    check("--robusteval-update", body=body)
    assert len(_files(project)) == 4
    check(body=body, lost=8.0).assert_outcomes(failed=1)
    assert len(_files(project)) == 8
    result = check(body=body)
    assert result.parseoutcomes() == {"inconclusive": 1}
    result.stdout.fnmatch_lines(
        ["*test_reader: inconclusive (*R_id linf-0.02: a drop of 2 points would not*", "1 incon*"]
    )
    assert len(_files(project)) == 4
    check("--robusteval-strict", body=body).assert_outcomes(failed=1)


def test_comparing_asserts_nothing(check):
    check("--robusteval-update")
    body = (
        "import reader\ndef test_reader(robusteval_compare):\n"
        "    found = robusteval_compare(reader.load(8.0), suite='./shop.yaml', baseline='main', cells='a_id')\n"
        "    assert found.verdict == 'regressed'\n    assert found.cells[0].losses > 20\n"
    )
    check(body=body).assert_outcomes(passed=1)


def test_the_marker_gives_defaults_and_cells_can_be_parametrised(project, check):
    body = """\
import pytest
import reader
from robusteval.testing import suite_cells

@pytest.mark.robusteval(suite="./shop.yaml", baseline="main", sensitivity=0.3)
@pytest.mark.parametrize("cell", suite_cells("./shop.yaml"))
def test_reader(robusteval_check, cell):
    found = robusteval_check(reader.load(LOST), cells=[cell])
    assert [one.column for one in found.cells] == [cell]
    assert found.rule.sensitivity == 0.3
"""
    check("--robusteval-update", "--strict-markers", body=body).assert_outcomes(passed=4)
    assert _files(project) == ["a_id.json", "a_ood.json", "r_id@0.json", "r_ood@0.json"]
    assert len(load_baseline(project.path / "tests/baselines/main").cells) == 4
    assert check(body=body).parseoutcomes() == {"passed": 3, "inconclusive": 1}


def test_a_cell_that_the_baseline_lacks_is_obtained_beside_the_others(project, check):
    check("--robusteval-update")
    body = (
        "import reader\ndef test_reader(robusteval_check):\n"
        "    robusteval_check(reader.load(), suite='./shop.yaml', baseline='main', cells=['r_id', 'a_ood'])\n"
    )
    result = check(body=body)
    result.stdout.fnmatch_lines(["*no baseline 'main' for a_ood, r_id@0 yet*"])
    assert {cell.role for cell in load_obtained(project.path / "tests/baselines/main").cells} == {"a_ood", "r_id@0"}


def test_updating_is_refused_under_ci_unless_forced(check, monkeypatch):
    monkeypatch.setenv("CI", "true")
    result = check("--robusteval-update")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--robusteval-update would accept whatever this build finds*"])
    check("--robusteval-update=force").assert_outcomes(passed=1)


def test_only_stored_results_are_looked_at_when_told(project, check):
    stored = ("--robusteval-store", str(project.path / "store"))
    check("--robusteval-update", *stored)
    check("--robusteval-only-stored", *stored).assert_outcomes(passed=1)
    result = check("--robusteval-only-stored", *stored, lost=1.0)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*has no stored result (not run yet), and only stored ones are wanted*"])
    assert check("--robusteval-only-stored").ret == pytest.ExitCode.USAGE_ERROR


def test_a_limit_compares_on_the_first_examples_of_the_baseline(project, check):
    check("--robusteval-update").assert_outcomes(passed=1)
    result = check("--robusteval-limit", "40", "--robusteval-report", "report.json", "-v", "--color=yes")
    assert (result.ret, result.parseoutcomes()) == (0, {"inconclusive": 1})
    assert "\x1b[33mINCONCLUSIVE" in result.stdout.str() and "\x1b[32m" not in result.stdout.str()
    (entry,) = json.loads((project.path / "report.json").read_text())
    assert entry["cells"][0]["n"] == 40
    assert (entry["cells"][0]["losses"], entry["cells"][0]["gains"]) == (0, 0)


def test_the_report_and_the_junit_file_say_what_was_found(project, check):
    check("--robusteval-update")
    result = check("--robusteval-report", "out/report.json", "--junitxml", "junit.xml", lost=8.0)
    result.assert_outcomes(failed=1)
    (entry,) = json.loads((project.path / "out/report.json").read_text())
    assert (entry["test"], entry["outcome"], entry["verdict"]) == ("test_reader.py::test_reader", "failed", "regressed")
    assert entry["cells"][0]["difference"]["value"] < -0.05
    properties = {item.get("name"): item.get("value") for item in ET.parse(project.path / "junit.xml").iter("property")}
    assert properties["robusteval_verdict"] == "regressed"


BROKEN = {
    "another question": ("examples: 300", "examples: 299", "different questions: *data.n 300 -> 299"),
    "another version": ("version: 1", "version: 2", None),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_baseline_that_answers_another_question_is_named_with_the_fields(project, check, case):
    old, new, words = BROKEN[case]
    check("--robusteval-update")
    suite = project.path / "shop.yaml"
    suite.write_text(suite.read_text().replace(old, new))
    result = check()
    if words is None:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [f"*baseline 'main': A_id*{words}*accept a new one with pytest --robusteval-update*"]
        )


def test_another_kind_of_model_is_never_compared(check):
    check("--robusteval-update")
    body = (
        "import reader\nclass Other(reader.Reader): pass\ndef test_reader(robusteval_check):\n"
        "    robusteval_check(Other(), suite='./shop.yaml', baseline='main', cells=['a_id'])\n"
    )
    check(body=body).stdout.fnmatch_lines(["*baseline 'main' is not about what was measured: family Reader -> Other*"])


def test_a_baseline_that_was_edited_by_hand_is_named(project, check):
    check("--robusteval-update")
    path = project.path / "tests/baselines/main/a_id.json"
    path.write_text(path.read_text().replace('"wall_s"', '"wall_s" ', 1).replace('"accuracy": "', '"accuracy": "9', 1))
    result = check()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a_id.json: not a usable baseline (its content was changed after it was accepted)*"])
    check("--robusteval-update").assert_outcomes(failed=1)
    check("--robusteval-update=force").assert_outcomes(passed=1)


def test_a_model_that_raises_shows_its_own_traceback_and_the_examples(check):
    body = (
        "import reader\nclass Broken(reader.Reader):\n    def forward(self, images):\n"
        "        return 1 / 0  # the culprit\ndef test_reader(robusteval_check):\n"
        "    robusteval_check(Broken(), suite='./shop.yaml', baseline='main', cells=['a_id'])\n"
    )
    result = check(body=body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*return 1 / 0  # the culprit*", "*ZeroDivisionError*", "*on the examples upright*"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("baseline='a/b'", "*baseline 'a/b': a baseline is a folder*"),
        ("margn=0.1", "*unknown argument of robusteval_check 'margn'; did you mean 'margin'*"),
        ("margin=3", "*robusteval_check: parameter 'margin' is 3*"),
        ("suite='digts'", "*unknown suite 'digts'; did you mean 'digits'*"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(check, arguments, words):
    body = f"import reader\ndef test_reader(robusteval_check):\n    robusteval_check(reader.load(), {arguments})\n"
    result = check(body=body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([words])


@pytest.mark.parametrize(
    ("arguments", "marker", "words"),
    [
        ("", "@pytest.mark.robusteval('digits')", "*write names, such as robusteval(suite='digits', baseline='main')*"),
        ("cells=['a_id', 'r_odd']", "", "*suite shop has no cell r_odd; it has a_id, r_id@0*"),
    ],
)
def test_what_would_be_ignored_in_silence_is_refused(check, arguments, marker, words):
    body = (
        f"import pytest, reader\n{marker}\ndef test_reader(robusteval_check):\n"
        f"    robusteval_check(reader.load(), suite='./shop.yaml', baseline='main', {arguments})\n"
    )
    result = check(body=body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([words])


def test_a_report_needs_the_name_of_a_file(check):
    result = check("--robusteval-report", ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--robusteval-report .: is a folder*"])


@pytest.mark.slow
def test_a_worker_of_xdist_hands_its_results_to_the_report(project, check):
    body = """\
import pytest
import reader

@pytest.mark.parametrize("cell", ["a_id", "a_ood"])
def test_reader(robusteval_check, cell):
    robusteval_check(reader.load(LOST), suite="./shop.yaml", baseline="main", cells=[cell], sensitivity=0.3)
"""
    check("--robusteval-update", body=body).assert_outcomes(passed=2)
    result = check("-n", "1", "-p", "no:benchmark", "--robusteval-report", "report.json", body=body)
    result.assert_outcomes(passed=2)
    found = json.loads((project.path / "report.json").read_text())
    assert {cell["column"] for entry in found for cell in entry["cells"]} == {"a_id", "a_ood"}


def test_collecting_loads_neither_torch_nor_anything_heavy_of_robusteval(project, check):
    project.makepyfile(
        test_light="""\
import sys
from robusteval.testing import suite_cells
def test_nothing(request):
    heavy = {"torch", "pandas", "timm", "matplotlib", "robusteval.api", "robusteval.testing.checks"}
    assert suite_cells("smoke") == ["a_id", "r_id@0", "a_ood", "r_ood@0"]
    assert not heavy & set(sys.modules)
"""
    )
    plugin = () if installed() else ("-p", "robusteval.testing.plugin")
    project.runpytest_subprocess(*plugin, "test_light.py").assert_outcomes(passed=1)


def test_the_plugin_itself_imports_only_pytest():
    script = (
        "import sys, pytest; before = set(sys.modules); import robusteval.testing.plugin; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('robusteval')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic", "pandas", "ruamel.yaml"} & set(eval(done.stdout))


def test_a_fast_check_fails_on_a_proved_loss_and_never_calls_a_part_of_the_protocol_a_pass(project, check):
    whole = (
        "import reader\ndef test_reader(robusteval_check):\n"
        "    robusteval_check(reader.load(LOST), suite='./shop.yaml', baseline='main')\n"
    )
    check("--robusteval-update", body=whole)
    body = (
        "import reader\ndef test_reader(robusteval_fast_check):\n"
        "    found = robusteval_fast_check(reader.load(LOST), suite='./shop.yaml', baseline='main', sensitivity=0.3)\n"
        "    assert found.verdict == 'pass' and found.findings.complete\n"
    )
    check("--robusteval-report", "report.json", body=body).assert_outcomes(passed=1)
    (entry,) = json.loads((project.path / "report.json").read_text())
    assert (entry["verdict"], entry["cells"][0]["n"]) == ("pass", 60)
    result = check(body=body, lost=20.0)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*fast gate: regressed, * passes an example (clean 60 examples*"])


def test_baselines_that_no_check_uses_are_reported(project, check):
    check("--robusteval-update")
    (project.path / "tests/baselines/old").mkdir()
    check().stdout.fnmatch_lines(["no check of this session used the baselines old; *"])
    assert "used the baselines" not in check("-k", "reader").stdout.str()
