"""The commands for datasets: what is there, links, downloads, verification."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robusteval.data.catalogue import PUBLISHED

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own for caches and links."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two domains with two classes of ten pictures; one picture stands in both domains."""
    rng = np.random.default_rng(0)
    for domain in ("photo", "sketch"):
        for label in ("cat", "dog"):
            for index in range(10):
                path = tmp_path / "pictures" / domain / label / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                small.resize((40, 40), Image.Resampling.BICUBIC).save(path)
    twin = tmp_path / "pictures" / "sketch" / "dog" / "3.png"
    twin.write_bytes((tmp_path / "pictures" / "photo" / "cat" / "5.png").read_bytes())
    return tmp_path / "pictures"


def test_every_published_dataset_is_listed_with_its_place(command: Command, home: Path) -> None:
    code, out, _ = command("data", "ls", "--json")
    assert code == 0
    listed = {entry["name"]: entry for entry in json.loads(out)}
    assert set(listed) == set(PUBLISHED)
    assert listed["pacs"]["state"] == "absent"
    assert listed["cifar10"]["state"] == "fetchable"
    assert listed["pacs"]["place"] == str(home / ".cache" / "robusteval" / "datasets" / "pacs")
    code, out, _ = command("data", "ls")
    assert code == 0
    assert all(name in out for name in PUBLISHED)


def test_a_link_says_where_a_dataset_lies(command: Command, pictures: Path, tmp_path: Path) -> None:
    assert command("data", "link", "pacs", pictures)[0] == 0
    assert {e["name"]: e["place"] for e in json.loads(command("data", "ls", "--json")[1])}["pacs"] == str(pictures)
    (tmp_path / "other").mkdir()
    assert command("data", "link", "pacs", tmp_path / "other")[0] == 0
    code, _, err = command("data", "link", "pacs", tmp_path / "absent")
    assert (code, "no such folder" in err) == (2, True)
    code, _, err = command("data", "link", "pasc", pictures)
    assert code == 2
    assert "did you mean 'pacs'" in err


def test_a_folder_of_its_own_is_not_replaced_by_a_link(command: Command, pictures: Path, home: Path) -> None:
    place = home / ".cache" / "robusteval" / "datasets" / "pacs"
    place.mkdir(parents=True)
    code, _, err = command("data", "link", "pacs", pictures)
    assert code == 2
    assert "is a folder of its own; move it away first" in err


def test_what_no_program_can_download_says_where_people_get_it(command: Command) -> None:
    code, _, err = command("data", "fetch", "pacs")
    assert code == 2
    assert PUBLISHED["pacs"].homepage in err
    assert "robusteval data link pacs FOLDER" in err
    assert err.count("\n") == 1


def test_verification_counts_lists_and_finds_the_twin(command: Command, pictures: Path) -> None:
    code, out, _ = command("data", "verify", "image-folder", "--path", pictures, "--json", "-q")
    assert code == 0
    found = json.loads(out)
    assert sum(sum(splits.values()) for splits in found["counts"].values()) == 40
    assert found["files"]["n"] == 40
    assert found["files"]["first"]
    (twin,) = found["twins"]
    assert set(twin["ids"]) == {"photo/cat/5.png", "sketch/dog/3.png"}
    assert (twin["similarity"], twin["same_label"]) == (1.0, False)
    code, out, _ = command("data", "verify", "image-folder", "--path", pictures)
    assert code == 0
    assert "all as at the first verification" in out
    assert "1 pairs of alike pictures, 1 with equal pixels, 1 with two classes" in out


def test_a_changed_file_ends_verification_with_an_error(command: Command, pictures: Path) -> None:
    verify = ("data", "verify", "image-folder", "--path", pictures, "--no-leaks")
    assert command(*verify)[0] == 0
    Image.new("RGB", (40, 40)).save(pictures / "photo" / "cat" / "0.png")
    code, _, err = command(*verify)
    assert code == 2
    assert "not the files of the first verification (changed: photo/cat/0.png)" in err
    assert command(*verify, "--accept")[0] == 0
    assert command(*verify)[0] == 0


def test_a_broken_image_is_named(command: Command, pictures: Path, home: Path) -> None:
    (pictures / "photo" / "cat" / "0.png").write_bytes(b"broken")
    code, _, err = command("data", "verify", "image-folder", "--path", pictures, "-q")
    assert code == 2
    assert "1 of 40 images cannot be used: photo/cat/0.png" in err
    assert not (home / ".cache" / "robusteval" / "pixels").exists()


def test_a_dataset_that_is_not_on_disk_can_still_be_scanned(command: Command) -> None:
    code, out, _ = command("data", "verify", "digits", "--no-leaks")
    assert code == 0
    assert "nothing of it is on disk" in out


def test_what_is_absent_can_still_be_described(command: Command) -> None:
    code, out, _ = command("describe", "pacs")
    assert code == 0
    assert "pacs is not there; link it with" in out
    assert "score_share" in out


@pytest.mark.parametrize("name", ["ls", "link", "fetch", "verify"])
def test_the_help_of_every_data_command_ends_with_worked_examples(command: Command, name: str) -> None:
    code, out, _ = command("data", name, "--help")
    assert code == 0
    assert f"robusteval data {name}" in out.rpartition("Examples:")[2]
