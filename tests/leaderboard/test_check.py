from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli.main import run
from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.check import check_entry, check_file, check_shelf
from robusteval.leaderboard.entries import Entry, decode_entry, encode_entry
from robusteval.leaderboard.findings import REJECTED
from robusteval.leaderboard.protocols import protocol_digest
from robusteval.leaderboard.shelf import Shelf
from robusteval.schema.cells import EvalCell
from robusteval.schema.digest import json_digest, pack_bits, unpack_bits
from robusteval.schema.records import Evaluation, Flag, result_digest

MakeEntry = Callable[..., Entry]
Content = dict[str, Any]
FLAG = Flag(code="gradients-vanish", severity="warning", evidence="seen", next_step="look")


def first(content: Content, kind: str = "clean") -> Content:
    """The first record of that evaluator."""
    found: Content = next(r for r in content["records"] if r["cell"]["evaluator"]["name"] == kind)
    return found


def refreshed(content: Content) -> None:
    """What a careful forger does: keys and digests made to fit the changed content, and references to them."""
    renamed = {}
    for record in content["records"]:
        cell = EvalCell.model_validate(record["cell"])
        renamed[record["cell_key"]] = cell.key
        record["cell_key"] = cell.key
        evaluation = Evaluation.model_validate_json(json.dumps(record["evaluation"]))
        record["result_digest"] = result_digest(cell.key, evaluation, None)
    for row in content["rows"]:
        row["cells"] = {role: renamed.get(key, key) for role, key in row["cells"].items()}


def flip(record: Content, outcome: str, to: bool = True, index: int | None = None) -> None:
    bits = record["evaluation"]["outcomes"][outcome]
    flags = unpack_bits(bits["bits"], bits["n"])
    flags[flags.index(not to) if index is None else index] = to
    bits["bits"] = pack_bits(flags)


def set_epsilon(content: Content) -> None:
    for record in content["records"]:
        if record["cell"]["threat"]:
            record["cell"]["threat"]["epsilon"] = "4/255"
    refreshed(content)


def fewer_examples(content: Content) -> None:
    for record in content["records"]:
        record["cell"]["data"]["n"] -= 1
        record["evaluation"]["domains"][0][1] -= 1
        for bits in record["evaluation"]["outcomes"].values():
            flags = unpack_bits(bits["bits"], bits["n"])[:-1]
            bits.update(n=len(flags), bits=pack_bits(flags))
    refreshed(content)


def robust_again(content: Content) -> None:
    record = first(content, "adversarial")
    flip(record, "robust")
    refreshed(content)


def changed_bit(content: Content) -> None:
    flip(first(content), "clean")
    refreshed(content)


def changed_metric(content: Content) -> None:
    first(content)["evaluation"]["metrics"][0]["value"] = 0.99
    refreshed(content)


def other_model(content: Content) -> None:
    first(content)["cell"]["model"]["cell"] = "f" * 64
    refreshed(content)


def other_ids(content: Content) -> None:
    first(content)["cell"]["data"]["ids_digest"] = "e" * 64
    refreshed(content)


def same_model_twice(content: Content) -> None:
    content["rows"][1]["train_key"] = content["rows"][0]["train_key"]


def cheap(content: Content) -> None:
    first(content, "adversarial")["evaluation"]["budget"]["forward"] = 10


def without_attack(content: Content) -> None:
    del first(content, "adversarial")["evaluation"]["outcomes"]["pgd"]
    refreshed(content)


TAMPERED: dict[str, tuple[Callable[[Content], object], str]] = {
    "bit, digests left": (lambda c: flip(first(c), "clean"), "result_digest"),
    "bit, digests made to fit": (changed_bit, "metric"),
    "fallen example counted as robust": (robust_again, "examples count as robust"),
    "metric": (changed_metric, "its outcome bits say"),
    "column": (lambda c: c["columns"]["r_id"].update(value=0.9, high=0.95), "its outcome bits say"),
    "interval": (lambda c: c["columns"]["r_id"].update(low=0.0), "its outcome bits say"),
    "count of a column": (lambda c: c["columns"]["r_id"].update(n=10_000), "n=10000"),
    "cell key": (lambda c: first(c).update(cell_key="a" * 64), "is not the key of the cell"),
    "result digest": (lambda c: first(c).update(result_digest="a" * 64), "result_digest"),
    "suite version": (lambda c: c["suite"].update(version=2), "the board ranks synthetic@1"),
    "suite name": (lambda c: c["suite"].update(name="easier"), "measured with easier@1"),
    "board": (lambda c: c.update(board="another"), "is for board 'another'"),
    "ids": (other_ids, "ids digest eeee"),
    "epsilon": (set_epsilon, "attacked under linf-4/255, the board ranks linf-8/255"),
    "n": (fewer_examples, "59 examples; the board asks for 60"),
    "forward budget": (cheap, "forward passes an example; at least 100"),
    "attack left out": (without_attack, "no outcome of attack 'pgd'"),
    "flag not disclosed": (lambda c: c.pop("flags"), "'gradients-vanish' is raised by a record but not disclosed"),
    "flag invented": (lambda c: c.update(flags=["gradients-vanish", "x"]), "no record raises it"),
    "record missing": (lambda c: c["records"].pop(), "is missing"),
    "record twice": (lambda c: c["records"].append(c["records"][0]), "stands there twice"),
    "seed missing": (lambda c: c["rows"].pop(), "1 training seeds; the board asks for 2"),
    "one model as two seeds": (same_model_twice, "two seeds are one and the same trained model"),
    "record of another model": (other_model, "is about another model"),
    "dirty checkout": (lambda c: first(c)["provenance"].update(git_dirty=True), "uncommitted changes"),
    "unknown column": (lambda c: c["columns"].update(r_idd=c["columns"]["r_id"]), "unknown column 'r_idd'"),
    "column missing": (lambda c: c["columns"].pop("r_ood"), "column 'r_ood' is missing"),
    "field not known": (lambda c: c.update(rank=1), "rank"),
    "badge": (lambda c: c.update(badge="reported"), "a reported entry has no records"),
}


def forged(entry: Entry, change: Callable[[Content], object]) -> bytes:
    content = json.loads(encode_entry(entry))["entry"]
    change(content)
    return json.dumps({"entry": content, "entry_digest": json_digest(content)}).encode()


def test_an_honest_entry_passes(board: Board, shelf: Shelf, make_entry: MakeEntry, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(encode_entry(make_entry("one", flags=(FLAG,))))
    entry, findings = check_file(path, board, shelf)
    assert entry is not None
    assert findings == []


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_entry_is_refused_with_the_reason(
    board: Board, shelf: Shelf, make_entry: MakeEntry, tmp_path: Path, what: str
) -> None:
    change, says = TAMPERED[what]
    path = tmp_path / "x.json"
    path.write_bytes(forged(make_entry("one", flags=(FLAG,)), change))
    _, findings = check_file(path, board, shelf)
    assert any(says in str(finding) for finding in findings), [str(finding) for finding in findings]
    assert all("\n" not in str(finding) for finding in findings)


def test_all_tampered_entries_are_refused_by_the_command_with_its_own_exit_code(
    shelf: Shelf, make_entry: MakeEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = make_entry("one", flags=(FLAG,))
    assert len(TAMPERED) > 20
    for number, (change, says) in enumerate(TAMPERED.values()):
        path = tmp_path / f"{number}.json"
        path.write_bytes(forged(entry, change))
        assert run(["submit", "--check", str(path), "--board", str(shelf.folder)]) == REJECTED
        out, err = capsys.readouterr()
        assert out == ""
        assert says in err
    assert shelf.read().entries == {}


def test_a_weaker_attack_of_the_same_name_is_refused(board: Board, make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    cell = next(record.cell for record in entry.records if record.cell_key == entry.rows[0].cells["r_id@0"])
    assert isinstance(cell, EvalCell)
    strict = board.model_copy(update={"protocols": {"r_id@0": protocol_digest(cell)}})
    assert check_entry(entry, strict) == []

    def weaker(content: Content) -> None:
        for record in content["records"]:
            if record["cell"]["threat"]:
                record["cell"]["evaluator"]["params"] = {"steps": 1}
        refreshed(content)

    found = check_entry(decode_entry(forged(entry, weaker), "x"), strict)
    assert {finding.code for finding in found} == {"protocol"}
    assert all("r_id@0" in finding.text for finding in found)


def test_an_entry_on_the_shelf_is_checked_against_the_others_only(
    board: Board, shelf: Shelf, make_entry: MakeEntry
) -> None:
    shelf.add(make_entry("one"))
    assert check_file(shelf.path("one"), board, shelf)[1] == []


def test_an_id_or_a_result_that_is_there_already_is_refused(
    board: Board, shelf: Shelf, make_entry: MakeEntry, tmp_path: Path
) -> None:
    shelf.add(make_entry("one"))
    path = tmp_path / "x.json"
    path.write_bytes(encode_entry(make_entry("one")))
    assert "never changed" in str(check_file(path, board, shelf)[1][0])
    path.write_bytes(encode_entry(make_entry("one").model_copy(update={"id": "two"})))
    assert "has the same cells as 'one'" in str(check_file(path, board, shelf)[1][0])
    correction = make_entry("one").model_copy(update={"id": "two", "supersedes": "one"})
    path.write_bytes(encode_entry(correction))
    assert check_file(path, board, shelf)[1] == []


def test_a_reproduction_shares_cells_and_agrees(
    board: Board, shelf: Shelf, make_entry: MakeEntry, tmp_path: Path
) -> None:
    shelf.add(make_entry("one"))
    again = {"badge": "reproduced", "reproduces": "one", "id": "one-again"}
    path = tmp_path / "x.json"
    path.write_bytes(encode_entry(make_entry("one").model_copy(update=again)))
    assert check_file(path, board, shelf)[1] == []
    path.write_bytes(encode_entry(make_entry("other", level=0.3).model_copy(update=again)))
    texts = " ".join(str(finding) for finding in check_file(path, board, shelf)[1])
    assert "shares no cell with 'one'" in texts
    assert "contradicts" in texts


def test_corrections_of_corrections_and_reproductions_stand_beside_the_first(
    board: Board, shelf: Shelf, make_entry: MakeEntry
) -> None:
    first = make_entry("one")
    shelf.add(first)
    shelf.add(first.model_copy(update={"id": "two", "supersedes": "one"}))
    shelf.add(first.model_copy(update={"id": "three", "supersedes": "two"}))
    for name in ("four", "five"):
        shelf.add(first.model_copy(update={"id": name, "badge": "reproduced", "reproduces": "one"}))
    assert check_shelf(board, shelf) == (5, {})
    shelf.add(first.model_copy(update={"id": "six"}))
    count, found = check_shelf(board, shelf)
    assert count == 6
    assert "has the same cells as" in found["synthetic/six"][0]


def test_reported_entries_are_checked_for_range(board: Board, make_reported: MakeEntry) -> None:
    assert check_entry(make_reported("one", a_id=0.5), board) == []
    assert "outside [0, 1]" in str(check_entry(make_reported("one", a_id=50.0), board)[0])


def test_the_protocol_is_the_same_for_two_models_and_not_for_other_parameters(make_entry: MakeEntry) -> None:
    cells = [make_entry(name).records[1].cell for name in ("one", "two")]
    assert all(isinstance(cell, EvalCell) for cell in cells)
    first_cell, second_cell = cells
    assert isinstance(first_cell, EvalCell)
    assert isinstance(second_cell, EvalCell)
    assert first_cell.key != second_cell.key
    assert protocol_digest(first_cell) == protocol_digest(second_cell)
    cheaper = first_cell.evaluator.model_copy(update={"params": {"steps": 1}})
    for change in ({"evaluator": cheaper}, {"protocol": 2}, {"seed": 1}):
        assert protocol_digest(first_cell) != protocol_digest(first_cell.model_copy(update=change))
