"""A board of a suite that trains every row once a fold, from a run to the site."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robusteval.cli.main import run
from robusteval.leaderboard.boards import load_board
from robusteval.leaderboard.check import check_entry
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.shelf import Shelf
from robusteval.scoring.table import score
from robusteval.store.store import Store

Command = Callable[..., tuple[int, str, str]]
DOMAINS = ("art", "photo", "sketch")
SUITE = """\
name: folded
version: 1
summary: One domain held out after the other.
seeds: [0, 1]
train:
  data: {{name: image-folder, params: {{path: ./pictures, cache: ./cache}}}}
  domains: [art, photo, sketch]
  folds: {folds}
  architecture: {{name: small-cnn, params: {{width: 4}}}}
methods:
  - {{method: erm, params: {{epochs: 1, lr: 0.05}}}}
  - {{method: erm, label: longer, params: {{epochs: 2, lr: 0.05}}}}
evaluate:
  id: {{examples: 4, robust_examples: 3}}
  ood: {{examples: 10, robust_examples: 6}}
  threats:
    - {{epsilon: 0.1, attacks: [fgsm]}}
"""


def pictures(folder: Path) -> None:
    """Two classes of noisy 16-pixel squares in three domains."""
    for place, domain in enumerate(DOMAINS):
        rng = np.random.default_rng(place)
        for level, label in ((60, "cat"), (190, "dog")):
            where = folder / domain / label
            where.mkdir(parents=True)
            for index in range(12):
                noise = rng.integers(-50, 50, (16, 16, 3))
                Image.fromarray((level + 5 * place + noise).astype(np.uint8)).save(where / f"{index}.png")


@pytest.fixture(scope="module", params=["leave-one-out", "single-source"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished store, and an empty board of its suite."""
    folder = tmp_path_factory.mktemp("folds")
    pictures(folder / "pictures")
    (folder / "folded.yaml").write_text(SUITE.format(folds=request.param))
    store = str(folder / "made")
    words = ["--store", store, "--executor", "serial", "--device", "cpu", "-q"]
    assert run(["run", str(folder / "folded.yaml"), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Path:
    """The same store, as a checkout without uncommitted changes would have filled it."""
    found = Store.open(place / "made")
    for record in list(found.records()):
        next((place / "made").rglob(f"{record.cell_key}*.json")).unlink()
        provenance = record.provenance.model_copy(update={"git_dirty": False})
        found.put(record.model_copy(update={"provenance": provenance}))
    return place / "made"


@pytest.fixture
def board(command: Command, place: Path, store: Path, tmp_path: Path) -> Path:
    asked = ("board", "init", place / "folded.yaml", "--store", store, "--out", tmp_path / "boards")
    code, _, err = command(*asked)
    assert (code, err) == (0, "")
    return tmp_path / "boards" / "folded"


@pytest.fixture
def filled(command: Command, store: Path, board: Path) -> Path:
    code, out, err = command("submit", "--all-rows", "--board", board, "--store", store)
    assert (code, out, err) == (0, f"{board}: 2 written\n", "")
    return board


def test_every_row_becomes_an_entry_with_the_numbers_of_the_suite_s_table(
    command: Command, store: Path, filled: Path
) -> None:
    place = Store.open(store)
    plan = place.get_plan("folded")
    assert plan is not None
    table = score(plan, {record.cell_key: record for record in place.records()}, place.groups)
    entries = Shelf(filled).read().entries
    for row in table.rows:
        entry = entries[row.method]
        assert {seed.fold for seed in entry.rows} == set(DOMAINS)
        assert len(entry.rows) == 2 * len(DOMAINS)
        assert entry.claims.architecture == "small-cnn"
        for key in ("a_id", "r_id", "a_ood", "r_ood"):
            estimate = getattr(row, key)
            stated = entry.columns[key]
            assert (stated.value, stated.low, stated.high, stated.n) == (
                pytest.approx(estimate.value), pytest.approx(estimate.low), pytest.approx(estimate.high), estimate.n
            )  # fmt: skip
    assert command("submit", "--all-rows", "--board", filled, "--store", store)[1] == f"{filled}: 2 there already\n"


def test_the_board_is_checked_ranked_by_paired_tests_and_built(command: Command, filled: Path, tmp_path: Path) -> None:
    assert command("board", "check", filled)[:2] == (0, "2 entries on 1 boards; 0 refused\n")
    code, out, _ = command("board", "show", filled)
    assert code == 0
    assert "exact paired tests on the same examples" in out
    assert command("board", "build", filled, "--out", tmp_path / "site")[0] == 0
    page = (tmp_path / "site" / "folded" / "entries" / "longer.html").read_text()
    assert "--only label=longer,seed=1,fold=photo" in page


def test_the_models_of_all_folds_are_run_again(command: Command, store: Path, filled: Path) -> None:
    asked = ("board", "verify", "erm", "--board", filled, "--store", store, "--device", "cpu", "--n", "60")
    code, out, err = command(*asked, "--draw", "0", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["verdict"], found["differing"]) == ("consistent", 0)
    cells = [(cell["fold"], cell["seed"], cell["role"]) for cell in found["cells"]]
    assert len(cells) == len(set(cells)) == 4 * 2 * len(DOMAINS)
    assert "seed 1 [photo]" in command(*asked, "--draw", "0")[1]


def test_a_fold_that_is_missing_or_swapped_is_refused(filled: Path) -> None:
    board, shelf = load_board(filled), Shelf(filled)
    entry = shelf.read().entries["erm"]

    def refused(rows: object) -> str:
        changed = Entry.model_validate({**entry.model_dump(), "rows": rows})
        return " ".join(map(str, check_entry(changed, board, shelf.groups)))

    rows = [row.model_dump() for row in entry.rows]
    assert "0 training seeds in fold 'art'" in refused([row for row in rows if row["fold"] != "art"])
    swapped = [row | {"fold": {"art": "photo", "photo": "art"}.get(row["fold"], row["fold"])} for row in rows]
    assert "ids digest" in refused(swapped)
    assert "measured in fold 'clipart'; the board has" in refused([row | {"fold": "clipart"} for row in rows])
    assert "others have [0, 1]" in refused([row for row in rows if (row["fold"], row["seed"]) != ("sketch", 1)])


def test_a_single_model_is_no_entry_of_a_board_with_folds(command: Command, board: Path, store: Path) -> None:
    code, out, err = command("submit", "x.safetensors", "--board", board, "--store", store)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "submit a row of its suite, not a model" in err
