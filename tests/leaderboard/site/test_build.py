from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robusteval.leaderboard.boards import Board, Column, board_yaml
from robusteval.leaderboard.entries import Claims, Entry, Origin, Value
from robusteval.leaderboard.shelf import Shelf
from robusteval.leaderboard.site.build import build_site, site_pages
from robusteval.leaderboard.text import cleaned
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import DataError

MakeEntry = Callable[..., Entry]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</script>{{ 7*7 }}\u202e"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if not self._in_script:
            self.words += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def filled(shelf: Shelf, make_entry: MakeEntry, make_reported: MakeEntry) -> Shelf:
    """A board with two measured entries, one of them corrected, and two reported ones."""
    shelf.add(make_entry("good", level=0.9))
    shelf.add(make_entry("weak", level=0.4))
    shelf.add(make_entry("again", level=0.41).model_copy(update={"supersedes": "weak"}))
    shelf.add(make_reported("paper", a_id=0.9368, r_id=0.7, a_ood=0.5))
    shelf.add(make_reported("partial", "No robust number", a_id=0.5))
    return shelf


def pages_of(*shelves: Shelf) -> dict[str, str]:
    problems: list[str] = []
    found = dict(site_pages([shelf.folder for shelf in shelves], problems.append))
    assert problems == []
    return {name: blob.decode() for name, blob in found.items() if not name.startswith("assets/")}


def test_the_site_has_a_page_for_every_board_and_every_entry(filled: Shelf) -> None:
    pages = pages_of(filled)
    names = ("again", "good", "paper", "partial", "weak")
    expected = {"index.html", "synthetic/index.html", "synthetic/board.csv", "synthetic/board.json"}
    assert set(pages) == expected | {f"synthetic/entries/{name}.html" for name in names}
    index = Page(pages["index.html"]).words
    assert "synthetic" in index
    assert "good" in index


def test_the_table_is_complete_and_in_order_without_javascript(filled: Shelf) -> None:
    page = Page(pages_of(filled)["synthetic/index.html"])
    rows = [row["data-id"] for row in page.named("tr") if "data-id" in row]
    assert rows == ["good", "again", "paper", "partial"]
    assert "93.68" in page.words
    assert "Measured entries" in page.words
    assert page.words.index("Measured entries") < page.words.index("Reported entries")
    assert "exact paired tests" in page.words
    assert "weak, superseded by again" in " ".join(page.words.split())
    assert len(page.named("circle")) == 6  # two figures: four entries have the first pair of columns, three each


def test_every_link_leads_to_a_page_of_the_site_and_every_asset_is_there(filled: Shelf, tmp_path: Path) -> None:
    out = tmp_path / "site"
    build_site([filled.folder], out)
    for path in out.rglob("*.html"):
        page = Page(path.read_text())
        links = [link.get("href") for link in [*page.named("a"), *page.named("link")]]
        for link in [*links, *(script.get("src") for script in page.named("script"))]:
            if link is not None:
                place, _, part = link.partition("#")
                assert (path.parent / place if place else path).resolve().is_file(), link
                assert place or unquote(part) in {attributes.get("id") for _, attributes in page.tags}, link


def test_no_page_asks_anybody_for_anything(filled: Shelf, make_reported: MakeEntry) -> None:
    claims = Claims(title="x", paper="https://example.org/paper")
    filled.add(make_reported("linked", a_id=0.5, r_id=0.1).model_copy(update={"claims": claims}))
    for text in pages_of(filled).values():
        page = Page(text)
        for tag, attributes in page.tags:
            for name in ("src", "href", "action", "data", "srcset", "poster"):
                target = attributes.get(name) or ""
                assert "//" not in target or (tag == "a" and target == "https://example.org/paper")
        assert "@import" not in text
        assert "url(" not in text


def test_a_record_page_says_how_to_get_the_number_again(filled: Shelf, make_entry: MakeEntry) -> None:
    text = pages_of(filled)["synthetic/entries/good.html"]
    assert "robusteval run synthetic --only label=good,seed=0  # suite version 1" in text
    assert "robusteval run synthetic --only label=good,seed=1,role=r_ood@0</code>" in text
    words = Page(text).words
    record = make_entry("good", level=0.9).records[0]
    assert record.cell_key in words
    assert record.result_digest in words
    assert "linf-8/255" in words
    assert "100.0 forward, 50.0 backward" in words


def test_equal_boards_give_equal_bytes_and_check_notices_any_change(filled: Shelf, tmp_path: Path) -> None:
    out = tmp_path / "site"
    report = build_site([filled.folder], out)
    assert report.differing == ()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(before) == report.pages
    assert build_site([filled.folder], out, check=True).differing == ()
    page = out / "synthetic" / "entries" / "good.html"
    page.write_text(page.read_text() + " ")
    (out / "index.html").unlink()
    found = build_site([filled.folder], out, check=True)
    assert set(found.differing) == {"synthetic/entries/good.html", "index.html"}
    assert not (out / "index.html").exists()
    build_site([filled.folder], out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_bytes_do_not_depend_on_the_hash_seed(filled: Shelf, tmp_path: Path) -> None:
    script = (
        "import hashlib, sys; from pathlib import Path; from robusteval.leaderboard.site.build import site_pages\n"
        "for name, blob in site_pages([Path(sys.argv[1])], print): print(name, hashlib.sha256(blob).hexdigest())"
    )
    root = str(Path(__file__).parents[3])
    told = subprocess.run(
        [sys.executable, "-c", script, str(filled.folder)],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    here = {name: sha256_hex(text.encode()) for name, text in pages_of(filled).items()}
    there = dict(line.split() for line in told.splitlines() if not line.startswith("assets/"))
    assert here == there


def test_data_files_hold_what_the_page_shows(filled: Shelf) -> None:
    pages = pages_of(filled)
    rows = list(csv.DictReader(pages["synthetic/board.csv"].splitlines()))
    assert [(row["group"], row["id"]) for row in rows][:2] == [("measured", "good"), ("measured", "again")]
    assert rows[2]["a_id"] == "0.9368"
    document = json.loads(pages["synthetic/board.json"])
    assert [group["group"] for group in document["groups"]] == ["measured", "reported"]
    assert document["groups"][0]["entries"][0]["rank"] == 1


def test_a_broken_entry_is_named_and_the_others_are_built(filled: Shelf, tmp_path: Path) -> None:
    filled.path("broken").write_text("{")
    report = build_site([filled.folder], tmp_path / "site")
    assert len(report.problems) == 1
    assert str(filled.path("broken")) in report.problems[0]
    assert (tmp_path / "site" / "synthetic" / "entries" / "good.html").is_file()


def test_two_boards_of_one_name_are_refused(filled: Shelf, tmp_path: Path) -> None:
    other = tmp_path / "other" / "synthetic"
    shutil.copytree(filled.folder, other)
    with pytest.raises(DataError, match="a second board is called 'synthetic'"):
        build_site([filled.folder, other], tmp_path / "site")


def evil_entry(text: str) -> Entry:
    line = cleaned(text) or "x"
    return Entry(
        id="evil",
        board="b",
        badge="reported",
        claims=Claims(
            title=line, authors=line, venue=line, architecture=line, licence=line, contact=line, footnote=line
        ),
        columns={"a_id": Value(value=0.5, written=line[:60]), "r_id": Value(value=0.1)},
        origin=Origin(
            system="test",
            file=line[:60],
            sha256="0" * 64,
            fields={text[:50]: text, "inner": {"deep": [text]}},
            cells={f"{text[:20]}/1": text[:20]},
            notes=(line[:60],),
        ),
    )


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.just(EVIL), st.text(max_size=80), st.from_regex(r"<[a-z]+ on[a-z]+=.{0,10}>|</?script.{0,9}>")))
def test_foreign_text_never_becomes_markup(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    folder = tmp_path_factory.mktemp("evil") / "b"
    columns = (Column(key="a_id", title=cleaned(text) or "x", note=cleaned(text)), Column(key="r_id", title="R"))
    board = Board(
        name="b", version=1, title=cleaned(text) or "x", summary=cleaned(text), columns=columns,
        order=("a_id",), pairs=(("a_id", "r_id"),), licence=cleaned(text)[:60],
    )  # fmt: skip
    folder.mkdir()
    (folder / "board.yaml").write_text(board_yaml(board))
    shelf = Shelf(folder)
    shelf.add(evil_entry(text))
    for name, page in pages_of(shelf).items():
        if not name.endswith(".html"):
            continue
        parsed = Page(page)
        assert not [attributes for _, attributes in parsed.tags if any(key.startswith("on") for key in attributes)]
        assert {tag for tag, _ in parsed.tags} <= TAGS
        assert len(parsed.named("script")) == {"b/index.html": 3, "index.html": 0}.get(name, 1)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", page)
        if name == "b/index.html":
            data = re.search(r'id="board-data">(.*?)</script>', page, re.DOTALL)
            assert data is not None
            assert json.loads(data[1])["columns"][0]["title"] == (cleaned(text) or "x")


TAGS = {
    "html", "head", "meta", "title", "link", "body", "h1", "h2", "h3", "p", "a", "div", "label", "input", "span",
    "table", "thead", "tbody", "tr", "th", "td", "button", "br", "small", "select", "option", "figure", "figcaption",
    "ul", "li", "ol", "section", "h4", "details", "summary",
    "script", "svg", "rect", "line", "text", "polyline", "circle", "dl", "dt", "dd", "code", "pre",
}  # fmt: skip


def test_the_page_of_a_reproduction_says_how_many_results_are_bit_for_bit_the_same(
    shelf: Shelf, make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    first = make_entry("one")
    shelf.add(first)
    shelf.add(first.model_copy(update={"id": "again", "badge": "reproduced", "reproduces": "one"}))
    build_site([shelf.folder], tmp_path / "site")
    page = (tmp_path / "site" / shelf.folder.name / "entries" / "again.html").read_text()
    assert "8 of 8 results have the same digest; 0 of 960 outcomes differ" in page
