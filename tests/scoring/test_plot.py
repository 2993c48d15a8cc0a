from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from robusteval.schema.errors import UsageError
from robusteval.scoring.plot import default_pairs, scatter
from robusteval.scoring.table import score


@pytest.fixture
def table(world):
    world.row("half", (0.7, 0.5, 0.5, 0.3))
    del world.records[world.rows[-1].cells["a_id"]]
    return score(world.plan(), world.records, world.groups)


def test_png_has_two_panels_of_pixels(table, tmp_path):
    path = scatter(table, tmp_path / "figure.png")
    image = Image.open(path).convert("L")
    assert image.width > 1.8 * image.height
    for half in (image.crop((0, 0, image.width // 2, image.height)), image.crop((image.width // 2, 0, *image.size))):
        assert half.getextrema() == (half.getextrema()[0], 255)
        assert half.getextrema()[0] < 80


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_tables_give_equal_bytes(table, tmp_path, suffix):
    first = scatter(table, tmp_path / f"a.{suffix}", "a_id", "r_id").read_bytes()
    assert first == scatter(table, tmp_path / f"b.{suffix}", "a_id", "r_id").read_bytes()


def test_svg_is_well_formed_and_undated(table, tmp_path):
    text = scatter(table, tmp_path / "figure.svg", "a_ood", "r_ood").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "<dc:date>" not in text


def test_the_users_matplotlib_settings_neither_matter_nor_change(table, tmp_path):
    import matplotlib as mpl

    plain = scatter(table, tmp_path / "a.svg", "a_id", "r_id").read_bytes()
    with mpl.rc_context({"font.size": 20.0, "axes.facecolor": "black"}):
        assert scatter(table, tmp_path / "b.svg", "a_id", "r_id").read_bytes() == plain
        assert mpl.rcParams["font.size"] == 20.0


def test_costs_can_be_an_axis(table, tmp_path):
    assert scatter(table, tmp_path / "cost.svg", "train_passes_per_example", "r_id").stat().st_size > 1000


def test_panels_follow_what_was_measured(table, make_world):
    assert default_pairs(table) == [("a_id", "r_id"), ("a_ood", "r_ood")]
    world = make_world(ood_domains=())
    world.row("erm", (0.9, 0.1, 0.0, 0.0))
    assert default_pairs(score(world.plan(), world.records)) == [("a_id", "r_id")]


@pytest.mark.parametrize(
    ("name", "x", "y", "message"),
    [
        ("a.pdf", None, None, "write a .png or .svg"),
        ("plain", None, None, "write a .png or .svg"),
        ("a.svg", "a_id", None, "both columns or neither"),
        ("a.svg", "a_id", "r_odd", "did you mean 'r_ood'"),
    ],
)
def test_bad_requests_are_named(table, tmp_path, name, x, y, message):
    with pytest.raises(UsageError, match=message):
        scatter(table, tmp_path / name, x, y)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw_is_an_error_not_an_empty_figure(world, tmp_path):
    with pytest.raises(UsageError, match="no method with a result in a_id and r_id"):
        scatter(score(world.plan(), {}), tmp_path / "a.svg", "a_id", "r_id")
