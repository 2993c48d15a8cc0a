from __future__ import annotations

import json
import threading

import pytest

from robusteval.schema.errors import UsageError
from robusteval.schema.records import Flag
from robusteval.scoring.baseline_cell import BaselineError, decode_cell, make_cells
from robusteval.scoring.baselines import (
    BaselineConflictError,
    load_baseline,
    load_best,
    load_obtained,
    write_baseline,
    write_obtained,
)
from robusteval.scoring.sides import compare_sides
from robusteval.scoring.verdicts import Rule

FLAG = Flag(code="zero-gradient", severity="warning", evidence="seen", next_step="look")


@pytest.fixture
def cells(make_world):
    """Builds the files of a baseline of one model, with that many right answers of 40."""

    def build(right: int = 30, family: str = "Net", flags=(), roles=("a_id", "r_id@0"), grouped=False):
        world = make_world(clean_n=40, robust_n=40)
        bits = [index < right for index in range(40)]
        train = world.train("erm", right)
        found = {}
        for role in roles:
            threat = 0 if role.startswith("r_") else None
            outcomes = {"clean": bits} if threat is None else {"clean": bits, "robust": bits}
            key = world.measure(train, "id", outcomes, threat, flags=flags)
            found[role] = {0: world.records[key]}
        groups = (lambda digest: [str(index // 4) for index in range(40)]) if grouped else (lambda digest: None)
        return make_cells("main", "shop@1", family, found, groups)

    return build


def test_what_was_written_is_read_back(cells, tmp_path):
    written = write_baseline(tmp_path / "main", cells(grouped=True), None)
    found = load_baseline(tmp_path / "main")
    assert found == written
    assert [cell.stem for cell in found.cells] == ["a_id", "r_id@0"]
    assert found.cells[0].accuracy == "30 of 40 (75.0 %)"
    assert found.cells[1].cell == "R_id linf-0.1 on upright"
    assert found.cells[0].groups == tuple(index // 4 for index in range(40))
    assert compare_sides(found.side(), found.side(), Rule()).cells[0].losses == 0
    assert load_baseline(tmp_path / "other") is None


def test_the_first_lines_of_a_file_are_for_the_reader(cells, tmp_path):
    write_baseline(tmp_path / "main", cells(), None)
    lines = (tmp_path / "main/a_id.json").read_text().splitlines()[:8]
    assert ' "suite": "shop@1",' in lines
    assert ' "accuracy": "30 of 40 (75.0 %)",' in lines


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("30 of 40", "39 of 40"), "its content was changed after it was accepted"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 2', 1), "written by a newer robusteval"),
        (lambda text: text[: len(text) // 2], "not a usable baseline"),
        (lambda text: text.replace('"role"', '"rolle"', 1), "not a usable baseline"),
        (lambda text: "[]", "not a JSON object"),
    ],
)
def test_a_damaged_file_is_named(cells, tmp_path, change, words):
    write_baseline(tmp_path / "main", cells(), None)
    path = tmp_path / "main/a_id.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(BaselineError, match=f"a_id.json.*{words}"):
        load_baseline(tmp_path / "main")


def test_a_file_of_another_version_of_the_baseline_is_noticed(cells, tmp_path):
    write_baseline(tmp_path / "main", cells(30), None)
    old = (tmp_path / "main/a_id.json").read_bytes()
    write_baseline(tmp_path / "main", cells(31), load_baseline(tmp_path / "main"))
    (tmp_path / "main/a_id.json").write_bytes(old)
    with pytest.raises(BaselineError, match="do not belong to one baseline"):
        load_baseline(tmp_path / "main")
    (tmp_path / "main/a_id.json").unlink()
    with pytest.raises(BaselineError, match="do not belong to one baseline"):
        load_baseline(tmp_path / "main")


def test_a_file_in_the_place_of_the_folder_is_named(cells, tmp_path):
    (tmp_path / "main").write_text("{}")
    for use in (load_baseline, load_obtained, lambda folder: write_baseline(folder, cells(20), None)):
        with pytest.raises(BaselineError, match="main: is a file where a baseline is a folder"):
            use(tmp_path / "main")


def test_a_renamed_baseline_is_noticed(cells, tmp_path):
    write_baseline(tmp_path / "main", cells(), None)
    (tmp_path / "main").rename(tmp_path / "release")
    with pytest.raises(BaselineError, match="one baseline called 'release'"):
        load_baseline(tmp_path / "release")


def test_of_parallel_sessions_one_wins_whole_and_the_others_say_so(cells, tmp_path):
    sets = [cells(20 + index) for index in range(6)]
    outcomes: list[object] = []

    def accept(mine):
        try:
            outcomes.append(write_baseline(tmp_path / "main", mine, None))
        except BaselineConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=accept, args=(mine,)) for mine in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [found for found in outcomes if not isinstance(found, BaselineConflictError)]
    assert len(winners) == 1
    assert load_baseline(tmp_path / "main") == winners[0]
    assert all("another session accepted another baseline meanwhile" in str(e) for e in outcomes if e not in winners)


def test_a_new_reason_for_doubt_is_accepted_only_by_force(cells, tmp_path):
    folder = tmp_path / "main"
    seen = write_baseline(folder, cells(30), None)
    with pytest.raises(UsageError, match="flagged zero-gradient and the baseline is not"):
        write_baseline(folder, cells(35, flags=(FLAG,)), seen)
    assert load_baseline(folder) == seen
    forced = write_baseline(folder, cells(35, flags=(FLAG,)), seen, force=True)
    assert write_baseline(folder, cells(36, flags=(FLAG,)), forced).cells[0].doubts == ("zero-gradient",)


def test_the_best_record_stays_when_worse_ones_are_accepted(cells, tmp_path):
    folder = tmp_path / "main"
    seen = None
    for right in (30, 34, 32, 31):
        seen = write_baseline(folder, cells(right), seen)
    assert [cell.accuracy for cell in load_best(folder).cells] == ["34 of 40 (85.0 %)"] * 2
    assert load_baseline(folder).cells[0].accuracy == "31 of 40 (77.5 %)"


def test_cells_can_be_accepted_one_by_one(cells, tmp_path):
    folder = tmp_path / "main"
    write_baseline(folder, cells(roles=("a_id",)), None, partial=True)
    # Both sessions saw the baseline before the other wrote its cell.
    write_baseline(folder, cells(roles=("r_id@0",)), None, partial=True)
    assert [cell.role for cell in load_baseline(folder).cells] == ["a_id", "r_id@0"]
    with pytest.raises(BaselineError, match="holds cells of Net on shop@1, the new ones are of Other"):
        write_baseline(folder, cells(family="Other", roles=("a_id",)), load_baseline(folder), partial=True)


def test_what_was_obtained_lies_beside_until_it_is_accepted(cells, tmp_path):
    folder = tmp_path / "main"
    seen = write_baseline(folder, cells(30), None)
    paths = write_obtained(folder, cells(31))
    assert [path.name for path in paths] == ["a_id.obtained.json", "r_id@0.obtained.json"]
    assert load_baseline(folder) == seen
    write_baseline(folder, load_obtained(folder).cells, seen)
    assert load_obtained(folder) is None
    assert load_baseline(folder).cells[0].accuracy == "31 of 40 (77.5 %)"


def test_a_cell_survives_the_way_through_its_file(cells):
    cell = cells(grouped=True)[0]
    assert decode_cell(cell.encode(), "here") == cell
    assert json.loads(cell.encode())["groups"].startswith("0 0 0 0 1")
