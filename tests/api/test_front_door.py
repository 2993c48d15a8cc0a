from __future__ import annotations

import subprocess
import sys

import pytest

import robusteval
from robusteval.schema.errors import UnknownNameError, UsageError


def test_importing_loads_nothing_heavy():
    script = "import sys, robusteval; print(sorted({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_promised_name_is_there_and_others_are_refused():
    for name in robusteval.__all__:
        assert callable(getattr(robusteval, name))
        assert name in dir(robusteval)
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        robusteval.evalute  # noqa: B018


def test_a_suite_is_run_and_read_back(gate, tmp_path):
    found = robusteval.run(gate, store=tmp_path, device="cpu")
    assert found.scores.rows[0].ranked
    again = robusteval.load_results(gate, store=tmp_path)
    assert again.table() == found.table()
    assert robusteval.compare(again.side("erm"), found).verdict == "inconclusive"
    with pytest.raises(UsageError, match=r"unknown stored suite 'gate@7'; did you mean 'gate@1'"):
        robusteval.load_results("gate", store=tmp_path, version=7)
    with pytest.raises(UnknownNameError):
        robusteval.run("no-such-suite", store=tmp_path)
