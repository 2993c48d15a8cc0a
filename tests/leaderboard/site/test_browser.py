"""The site in a real browser, where there is one: opened from `file://`, without any network."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.shelf import Shelf
from robusteval.leaderboard.site.build import build_site

MakeEntry = Callable[..., Entry]


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Opens an address; gives the page as its scripts left it, and what was complained about."""
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if program is None:
        pytest.skip("no chromium on this machine")

    def open_page(address: str) -> tuple[str, str]:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr", "--v=0")
        # A resolver that knows no name turns every request to a server into an error in the log.
        offline = ("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=6000")
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        done = subprocess.run(
            [program, *options, *offline, profile, address], capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)

    return open_page


@pytest.fixture
def site(shelf: Shelf, make_entry: MakeEntry, make_reported: MakeEntry, tmp_path: Path) -> str:
    shelf.add(make_entry("good", level=0.9))
    shelf.add(make_entry("weak", level=0.4))
    shelf.add(make_reported("paper", a_id=0.99, r_id=0.2, a_ood=0.5))
    build_site([shelf.folder], tmp_path / "site")
    return (tmp_path / "site" / "synthetic" / "index.html").as_uri()


def rows(page: str) -> list[str]:
    return re.findall(r'<tr id="row-([a-z]+)"', page)


def test_the_page_sorts_filters_draws_and_marks_what_its_address_says(
    browse: Callable[[str], tuple[str, str]], site: str
) -> None:
    page, complaints = browse(site)
    assert complaints == ""
    assert 'class="scripted"' in page
    assert rows(page) == ["good", "weak", "paper"]
    assert 'class="main-svg"' in page
    assert "3 shown" in page

    page, complaints = browse(f"{site}#sort=a_id:up&q=model%20weak&row=weak&pair=a_id,a_ood")
    assert complaints == ""
    assert rows(page) == ["weak", "good", "paper"]
    assert "1 shown" in page
    assert len(re.findall(r'<tr id="row-[a-z]+"[^>]*hidden', page)) == 2
    assert re.search(r'<tr id="row-weak"[^>]*class="chosen"', page)
    assert re.search(r'data-key="a_id"[^>]*aria-sort="ascending"', page)
