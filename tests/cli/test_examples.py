from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from robusteval.cli.main import run
from robusteval.store.store import Store

SUITE = """\
name: kept
version: 1
summary: One model whose adversarial images are kept.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods: [{method: erm, params: {epochs: 2, lr: 0.05}}]
evaluate:
  id: {examples: 12, robust_examples: 12}
  ood: {domains: [rotated], examples: 6, robust_examples: 6}
  threats:
    - {epsilon: 0.1, attacks: [fgsm, {name: pgd, params: {steps: 3}}]KEEP}
"""


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose attacked cells keep their images; tests only read it."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "kept.yaml").write_text(SUITE.replace("KEEP", ", keep: uint8"))
    store = folder / "store"
    arguments = [
        "run",
        str(folder / "kept.yaml"),
        "--store",
        str(store),
        "--executor",
        "serial",
        "--device",
        "cpu",
        "-q",
    ]
    assert run(arguments) == 0
    return store


def attacked(store: Path, role: str = "r_id@0") -> str:
    """Key of an attacked cell."""
    plan = Store.open(store).get_plan("kept")
    assert plan is not None
    return plan.rows[0].cells[role]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_cell_is_written_as_one_row_an_example(command, kept: Path) -> None:
    key = attacked(kept)
    code, out, _ = command("examples", key[:12], "--store", kept)
    assert code == 0
    rows = rows_of(out)
    record = Store.open(kept).get(key)
    ids, groups = Store.open(kept).ids(record.cell.data.ids_digest)
    assert [row["example"] for row in rows] == ids
    assert [row["group"] for row in rows] == groups
    assert record.evaluation is not None
    robust = record.evaluation.outcomes["robust"].unpack()
    assert [row["robust"] == "true" for row in rows] == robust
    assert {row["broken_by"] for row in rows} <= {"", "clean", "fgsm", "pgd"}
    assert {row["image"] for row in rows} <= {"", "uint8", "float32"}
    for row in rows:
        assert bool(row["image"]) == (row["broken_by"] in ("fgsm", "pgd"))
        assert (row["label"] == row["prediction"]) == (row["clean"] == "true")
        assert (float(row["norm"]) <= 0.1 + 1e-6) if row["norm"] else row["broken_by"] in ("", "clean")


def test_a_suite_is_written_with_the_place_of_every_row_in_its_table(command, kept: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for ending in ("csv", "parquet", "json"):
        code, out, err = command("examples", "kept", "--store", kept, "--out", tmp_path / f"rows.{ending}")
        assert (code, out) == (0, "")
        assert "36 rows" in err
    frame = pd.read_parquet(tmp_path / "rows.parquet")
    assert frame.groupby(["row", "seed", "role"]).size().to_dict() == {
        ("erm", 0, "a_id"): 12,
        ("erm", 0, "r_id"): 12,
        ("erm", 0, "a_ood"): 6,
        ("erm", 0, "r_ood"): 6,
    }
    assert set(frame["threat"].dropna()) == {"linf-0.1"}
    assert len(json.loads((tmp_path / "rows.json").read_text())) == len(pd.read_csv(tmp_path / "rows.csv")) == 36


def test_the_worst_case_over_some_of_the_attacks_needs_no_run(command, kept: Path) -> None:
    code, out, err = command("examples", attacked(kept), "--store", kept, "--attacks", "fgsm", "--json")
    assert code == 0
    rows = json.loads(out)
    assert "stands/pgd" not in rows[0]
    assert all(row["robust"] == row["stands/fgsm"] for row in rows)
    assert err.startswith(f"robust accuracy over fgsm: {100 * sum(row['robust'] for row in rows) / 12:.1f} %")


def test_rows_are_written_without_torch(kept: Path) -> None:
    code = (
        "import sys; from robusteval.cli.main import run; "
        "code = run(sys.argv[1:]); sys.exit(99 if {'torch', 'pandas'} & set(sys.modules) else code)"
    )
    arguments = ["examples", attacked(kept), "--store", str(kept)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(done.stdout)) == 12


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["examples", "kept", "--attacks", "fgsm"], "--attacks is about one record"),
        (["examples", "KEY", "--attacks", "fgms"], "did you mean 'fgsm'"),
        (["examples", "KEY", "--out", "rows.xlsx"], "use .csv, .json, .parquet"),
        (["examples", "TRAIN"], "is a train cell and has no examples"),
        (["examples", "000000000000"], "no stored cell has a key that begins with"),
        (["examples", "no-such-suite"], "unknown stored suite"),
        (["replay", "TRAIN"], "is not the attack of a model in a ball"),
        (["replay", "KEY", "--device", "abacus"], "abacus"),
        (["replay", "000000000000"], "no stored cell has a key that begins with"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_do(arguments, says, command, kept: Path) -> None:
    plan = Store.open(kept).get_plan("kept")
    assert plan is not None
    names = {"KEY": attacked(kept), "TRAIN": str(plan.rows[0].train_key)}
    code, out, err = command(*(names.get(word, word) for word in arguments), "--store", kept)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("role", ["r_id@0", "r_ood@0"])
def test_saved_images_are_verified_again(role, command, kept: Path) -> None:
    key = attacked(kept, role)
    code, out, _ = command("replay", key[:16], "--store", kept, "--device", "cpu")
    rows = rows_of(command("examples", key, "--store", kept)[1])
    broken = sum(row["broken_by"] in ("fgsm", "pgd") for row in rows)
    assert code == 0
    assert broken > 0
    assert out.startswith(f"{broken} verified, 0 failed: {broken} images of linf-0.1")
    code, out, _ = command("replay", key, "--store", kept, "--json")
    found = json.loads(out)
    assert (code, found["verified"], found["failures"]) == (0, broken, [])
    assert "files of adversarial images; robusteval replay" in command("show", key, "--store", kept)[1]


def test_a_missing_or_damaged_file_of_images_ends_with_code_3(command, kept: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(kept, tmp_path / "copy")
    key = attacked(kept)
    evaluation = Store.open(kept).get(key).evaluation
    assert evaluation is not None
    (file,) = (tmp_path / "copy" / "artefacts").rglob(f"{evaluation.images[0]}.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    code, out, err = command("replay", key, "--store", tmp_path / "copy")
    assert (code, out) == (3, "")
    assert "the file of adversarial images is damaged" in err
    file.unlink()
    assert command("replay", key, "--store", tmp_path / "copy")[0] == 3


def test_the_table_is_the_same_whether_images_are_kept_or_not(command, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.yaml").write_text(SUITE.replace("KEEP", ""))
    store = tmp_path / "store"
    assert (
        command("run", tmp_path / "kept.yaml", "--store", store, "--executor", "serial", "--device", "cpu", "-q")[0]
        == 0
    )
    tables = [json.loads(command("show", "kept", "--store", place, "--json")[1]) for place in (kept, store)]
    for table in tables:
        for row in table:
            for name in [name for name in row if "wall" in name or name.endswith("_s")]:
                del row[name]
    assert tables[0] == tables[1]
    code, _, err = command("replay", attacked(store), "--store", store)
    assert code == 2
    assert "keeps no images" in err
