"""The site under the hands of a reader: mouse, keyboard, links, a phone, a dark room, no JavaScript."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.leaderboard.boards import Board, board_yaml
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.shelf import Shelf
from robusteval.leaderboard.site.build import build_site

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install selenium)")
waiting = pytest.importorskip("selenium.webdriver.support.wait", reason="selenium is not installed")

MakeEntry = Callable[..., Entry]
PHONE = (390, 844)
TITLE = "Ein <b>sehr</b> langer Titel " * 8


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium that knows no server."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    program = shutil.which("chromedriver")
    if browser is None or program is None:
        pytest.skip("no chromium and chromedriver on this machine (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking"):
        options.add_argument(f"--{word}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND ")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(program))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def site(
    board: Board, make_entry: MakeEntry, make_reported: MakeEntry, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("interaction")
    shelf = Shelf(folder / board.name)
    shelf.folder.mkdir()
    (shelf.folder / "board.yaml").write_text(board_yaml(board))
    shelf.add(make_entry("good", level=0.9))
    shelf.add(make_entry("weak", level=0.4))
    shelf.add(make_reported("paper", TITLE, a_id=0.99, r_id=0.2, a_ood=0.5))
    build_site([shelf.folder], folder / "site")
    return folder / "site"


@pytest.fixture
def page(driver: Any, site: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end nothing may have been complained about, and nobody asked."""
    driver.get_log("browser"), driver.get_log("performance")

    def open_page(name: str = "synthetic/index.html", part: str = "", size: tuple[int, int] = (1200, 900)) -> Any:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get("about:blank")
        driver.get((site / name).as_uri() + part)
        return driver

    yield open_page
    assert [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url.startswith(("http", "ws", "ftp"))] == []
    assert asked


def eventually(driver: Any, holds: Callable[[], object]) -> None:
    """Wait until something holds, as a browser does some things a little later."""
    waiting.WebDriverWait(driver, 30).until(lambda _: holds())


def shown(driver: Any) -> list[str]:
    """Ids of the rows that can be seen, from top to bottom."""
    found: list[str] = driver.execute_script(
        "return [...document.querySelectorAll('tr[data-id]')].filter(r => r.offsetHeight).map(r => r.dataset.id)"
    )
    return found


def hash_of(driver: Any) -> str:
    found: str = driver.execute_script("return location.hash")
    return found


def element(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def test_the_table_is_sorted_with_the_mouse_and_with_the_keyboard(page: Callable[..., Any]) -> None:
    driver = page()
    assert shown(driver) == ["good", "weak", "paper"]
    heading = "th[data-key=a_id]"
    element(driver, f"{heading} button").click()
    assert element(driver, heading).get_attribute("aria-sort") == "descending"
    element(driver, f"{heading} button").send_keys("\ue007")
    assert shown(driver) == ["weak", "good", "paper"]
    assert element(driver, heading).get_attribute("aria-sort") == "ascending"
    assert hash_of(driver) == "#sort=a_id%3Aup"
    driver.refresh()
    assert shown(driver) == ["weak", "good", "paper"]
    element(driver, f"{heading} button").click()
    assert hash_of(driver) == ""


def test_rows_are_searched_and_filtered(page: Callable[..., Any]) -> None:
    driver = page()
    element(driver, "#search").send_keys("sehr langer")
    assert shown(driver) == ["paper"]
    assert element(driver, "#shown").text == "1 shown"
    assert hash_of(driver) == "#q=sehr%20langer"
    element(driver, "#search").clear()
    element(driver, "#search").send_keys("model")
    assert shown(driver) == ["good", "weak"]
    element(driver, "#extra").click()
    assert "extra=no" in hash_of(driver)


def test_a_click_on_a_point_marks_its_row_and_the_address_keeps_it(page: Callable[..., Any]) -> None:
    driver = page()
    point = element(driver, "#plot .scatterlayer .trace .points path")
    webdriver.ActionChains(driver).move_to_element(point).pause(0.5).click().perform()
    eventually(driver, lambda: driver.find_elements("css selector", "tr.chosen"))
    (chosen,) = driver.find_elements("css selector", "tr.chosen")
    name = chosen.get_attribute("data-id")
    assert name in ("good", "weak")
    assert hash_of(driver) == f"#row={name}"
    driver = page(part=f"#row={name}&pair=a_id,a_ood&sort=r_id:up")
    assert [row.get_attribute("data-id") for row in driver.find_elements("css selector", "tr.chosen")] == [name]
    assert element(driver, "#y-axis").get_attribute("value") == "a_ood"
    eventually(driver, lambda: element(driver, "#plot .ytitle").text == "Clean accuracy, shifted")


def test_an_entry_leads_back_to_its_row_and_its_address_opens_a_record(page: Callable[..., Any]) -> None:
    driver = page("synthetic/entries/weak.html")
    assert driver.find_elements("css selector", "details[id='r_id@0-seed-1'][open]") == []
    driver.find_element("css selector", "a[href='#r_id%400-seed-1']").click()
    eventually(driver, lambda: driver.find_elements("css selector", "details[id='r_id@0-seed-1'][open]"))
    driver = page("synthetic/entries/weak.html", "#a_ood-seed-0")
    assert element(driver, "details[id='a_ood-seed-0']").get_attribute("open") is not None
    element(driver, "details[id='r_ood@0-seed-0'] summary").click()
    eventually(driver, lambda: hash_of(driver) == "#r_ood%400-seed-0")
    element(driver, "a[href='../index.html#row=weak']").click()
    eventually(driver, lambda: driver.find_elements("css selector", "tr.chosen[data-id=weak]"))


OVERFLOWING = """
const wide = innerWidth + 1;
return [...document.body.querySelectorAll('*')].filter(one =>
  one.getBoundingClientRect().right > wide && !one.closest('.wide, pre, svg, .js-plotly-plot')
).map(one => one.outerHTML);
"""


@pytest.mark.parametrize("name", ["index.html", "synthetic/index.html", "synthetic/entries/good.html",
                                  "synthetic/entries/paper.html"])  # fmt: skip
def test_nothing_overflows_on_a_phone(page: Callable[..., Any], name: str) -> None:
    driver = page(name, size=PHONE)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    assert driver.execute_script(OVERFLOWING) == []
    assert driver.execute_script("return [...document.querySelectorAll('.wide')].every(one => one.tabIndex === 0)")


def contrast(driver: Any, selector: str) -> float:
    """Ratio of the luminances of text and page, as WCAG counts it."""
    script = "const s = getComputedStyle(document.querySelector(arguments[0])); return s[arguments[1]]"
    texts = [driver.execute_script(script, *pair) for pair in ((selector, "color"), ("body", "backgroundColor"))]
    lights = []
    for text in texts:
        parts = [int(part) / 255 for part in re.findall(r"\d+", text)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_the_dark(page: Callable[..., Any], driver: Any, scheme: str) -> None:
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    found = page()
    paper = found.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    for selector in ("p", ".soft", "td a, th a", "small"):
        assert contrast(found, selector) > 4.5
    found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_page_is_whole_without_javascript(page: Callable[..., Any], driver: Any) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        found = page()
        rows = found.find_elements("css selector", "tr[data-id]")
        assert [row.get_attribute("data-id") for row in rows if row.is_displayed()] == ["good", "weak", "paper"]
        assert element(found, "svg.scatter").is_displayed()
        assert not element(found, "#search").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
