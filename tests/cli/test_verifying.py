"""Entries of models that the user has in hand, and entries measured again."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robusteval.cli.main import run
from robusteval.leaderboard.entries import Entry, encode_entry
from robusteval.leaderboard.shelf import Shelf
from robusteval.leaderboard.site.serve import site_server
from robusteval.schema.errors import UsageError
from robusteval.schema.records import Bits, Evaluation, ResultRecord, result_digest
from robusteval.store.store import Store

Command = Callable[..., tuple[int, str, str]]

SUITE = """\
name: kept
version: 1
summary: Attacks whose images are kept.
train: {data: digits, domains: [upright], architecture: {name: small-cnn, params: {width: 4}}}
methods:
  - {method: erm, params: {epochs: 1, lr: 0.05}}
evaluate:
  id: {examples: 60, robust_examples: 40}
  ood: {domains: [rotated], examples: 30, robust_examples: 20}
  threats:
    - {epsilon: 0.05, keep: uint8, attacks: [{name: pgd, params: {steps: 3}}]}
"""


def cleaned(folder: Path) -> None:
    """Make the records of a store look as if their checkout had no changes, which the board asks for."""
    store = Store.open(folder)
    for record in list(store.records()):
        path = next(folder.glob(f"records/*/{record.cell_key}*"), None) or next(
            folder.rglob(f"{record.cell_key}*.json")
        )
        path.unlink()
        store.put(record.model_copy(update={"provenance": record.provenance.model_copy(update={"git_dirty": False})}))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "kept.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def place(suite: Path) -> Iterator[Path]:
    """A folder with a store, a board, and the entry `erm` on it."""
    folder, store = suite.parent, str(suite.parent / "store")
    assert run(["run", str(suite), "--store", store, "--executor", "serial", "--device", "cpu", "-q"]) == 0
    cleaned(folder / "store")
    assert run(["board", "init", str(suite), "--store", store, "--out", str(folder / "boards")]) == 0
    assert run(["submit", "erm", "--store", store, "--board", str(folder / "boards" / "kept")]) == 0
    yield folder


def inflated(entry: Entry, share: float) -> Entry:
    """The entry with that share of the fallen examples counted as robust, and every digest and number made to fit."""
    records = []
    for record in entry.records:
        evaluation = record.evaluation
        assert evaluation is not None
        if "robust" in evaluation.outcomes:
            clean = evaluation.outcomes["clean"].unpack()
            stands = evaluation.outcomes["robust"].unpack()
            fallen = [
                index for index, (right, held) in enumerate(zip(clean, stands, strict=True)) if right and not held
            ]
            for index in fallen[: round(share * len(fallen))]:
                stands[index] = True
            records.append(with_outcomes(record, {"robust": stands, "pgd": stands}, sum(stands) / len(stands)))
        else:
            records.append(record)
    return entry.model_copy(update={"records": tuple(records)})


def with_outcomes(record: ResultRecord, outcomes: dict[str, list[bool]], share: float) -> ResultRecord:
    evaluation = record.evaluation
    assert evaluation is not None
    metrics = tuple(
        metric.model_copy(update={"value": share, "low": 0.0, "high": 1.0})
        if metric.name.startswith(("robust_accuracy", "accuracy_"))
        else metric
        for metric in evaluation.metrics
    )
    packed = {**evaluation.outcomes, **{name: Bits.pack(bits) for name, bits in outcomes.items()}}
    changed: Evaluation = evaluation.model_copy(update={"outcomes": packed, "metrics": metrics})
    digest = result_digest(record.cell_key, changed, None)
    return record.model_copy(update={"evaluation": changed, "result_digest": digest})


def test_an_honest_entry_is_consistent_and_its_images_hold(command: Command, place: Path) -> None:
    asked = (
        "board",
        "verify",
        "erm",
        "--board",
        place / "boards" / "kept",
        "--store",
        place / "store",
        "--device",
        "cpu",
    )
    code, out, err = command(*asked, "--n", "25", "--draw", "3", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["verdict"], found["differing"], found["broken_rules"]) == ("consistent", 0, [])
    by_role = {cell["role"]: cell for cell in found["cells"]}
    assert {role: len(cell["rerun"]) for role, cell in by_role.items()} == {
        "a_id": 25,
        "r_id@0": 25,
        "a_ood": 25,
        "r_ood@0": 20,
    }
    replays = [by_role[role]["replay"] for role in ("r_id@0", "r_ood@0")]
    assert all(replay["verified"] == replay["saved"] > 0 for replay in replays)
    assert found["compared"] == 25 + 2 * 25 + 25 + 2 * 20 + sum(replay["saved"] for replay in replays)
    assert 0.0 < found["power"] < 1.0
    assert command(*asked, "--n", "25", "--draw", "3", "--json")[1] == out
    code, out, _ = command(*asked, "--n", "1000")
    assert code == 0
    assert "a_id, seed 0: 60 of 60 examples measured again, 0 worse and 0 better than stated" in out
    assert "erm: consistent" in out


def test_an_entry_with_invented_robustness_is_found_out(command: Command, place: Path, tmp_path: Path) -> None:
    board = place / "boards" / "kept"
    entry = inflated(Shelf(board).read().entries["erm"], 0.9)
    (tmp_path / "erm.json").write_bytes(encode_entry(entry))
    asked = ("board", "verify", tmp_path / "erm.json", "--board", board, "--store", place / "store", "--device", "cpu")
    code, out, _ = command(*asked, "--n", "40", "--draw", "1", "--json")
    assert code == 6
    found = json.loads(out)
    assert found["verdict"] == "inconsistent"
    assert found["probability"] < 0.01
    attacked = next(cell for cell in found["cells"] if cell["role"] == "r_id@0")
    assert attacked["overclaimed"]
    assert attacked["underclaimed"] == []
    assert any("does not count this example as broken" in text for text in found["broken_rules"])


def test_a_checkpoint_is_measured_submitted_and_verified(
    command: Command, place: Path, suite: Path, tmp_path: Path
) -> None:
    board, weights = place / "boards" / "kept", tmp_path / "mine.safetensors"
    trained = Store.open(place / "store")
    training = next(record.training for record in trained.records() if record.training is not None)
    weights.write_bytes(trained.get_artefact(training.weights))
    store = tmp_path / "store"
    shown = ("--board", board, "--store", store, "--device", "cpu")
    code, _, err = command("submit", weights, *shown, "--suite", suite)
    assert (code, "" if code == 0 else {line.split(": ")[1] for line in err.splitlines()}) in (
        (0, ""),
        (6, {"provenance"}),
    )
    if code == 6:  # this checkout has uncommitted changes
        cleaned(store)
        assert command("submit", weights, *shown, "--suite", suite)[0] == 0
    entry = Shelf(board).read().entries["mine"]
    first = Shelf(board).read().entries["erm"]
    assert {key: value.value for key, value in entry.columns.items()} == {
        key: value.value for key, value in first.columns.items()
    }
    assert command("board", "check", board)[0] == 0
    verify = ("board", "verify", "mine", *shown, "--n", "10")
    code, _, err = command(*verify)
    assert code == 2
    assert "give it with --model" in err
    code, out, _ = command(*verify, "--model", weights)
    assert (code, "another digest" in out) == (0, False)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("weights.pth", "pickles run code when they are opened"),
        ("shop.models:load", "runs code of module 'shop.models'; add --trust-code"),
        ("absent.safetensors", "absent.safetensors: cannot be read"),
        ("timm:resnet_18", "did you mean"),
    ],
)
def test_what_is_no_model_or_not_trusted_is_one_line(
    command: Command, place: Path, suite: Path, tmp_path: Path, model: str, says: str
) -> None:
    board = place / "boards" / "kept"
    before = sorted(path.name for path in (board / "entries").iterdir())
    code, out, err = command(
        "submit", model, "--board", board, "--suite", suite, "--store", tmp_path / "s", "--id", "x"
    )
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert sorted(path.name for path in (board / "entries").iterdir()) == before


def test_a_suite_that_is_not_the_boards_is_refused(command: Command, place: Path, suite: Path, tmp_path: Path) -> None:
    other = tmp_path / "kept.yaml"
    other.write_text(suite.read_text().replace("version: 1", "version: 2"))
    code, _, err = command(
        "submit", "m.safetensors", "--board", place / "boards" / "kept", "--suite", other, "--store", tmp_path / "s"
    )
    assert code == 2
    assert "is kept@2; board kept ranks kept@1" in err


def test_the_site_is_served_to_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>boards")
    with site_server(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/index.html"
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.read() == b"<p>boards"
            assert server.server_address[0] == "127.0.0.1"
            with pytest.raises(UsageError, match="choose another"):
                site_server(tmp_path, server.server_port)
        finally:
            server.shutdown()
            thread.join()


def test_a_row_without_results_is_run_first_and_may_reproduce_an_entry(
    command: Command, place: Path, suite: Path, tmp_path: Path
) -> None:
    board, store = place / "boards" / "kept", tmp_path / "store"
    asked = ("submit", "erm", "--board", board, "--suite", suite, "--store", store, "--device", "cpu", "--id", "again")
    code, _, err = command(*asked)
    assert code == 6
    assert "has the same cells as 'erm'" in err
    assert sum(record.training is not None for record in Store.open(store).records()) == 1
    cleaned(store)
    assert command(*asked, "--reproduces", "erm")[0] == 0
    entry = Shelf(board).read().entries["again"]
    assert (entry.badge, entry.reproduces) == ("reproduced", "erm")
    assert command("board", "check", board)[0] == 0
