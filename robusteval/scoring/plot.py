"""Scatter plots of a scored suite: intervals, Pareto staircase, and labels that do not cover each other.

Equal tables give equal bytes: nothing in the files depends on the date or on a random salt.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusteval.schema.errors import UsageError, unknown_name
from robusteval.schema.specs import CELLS
from robusteval.scoring.labels import Box, place_labels
from robusteval.scoring.results import Estimate, MethodScore, SuiteTable
from robusteval.scoring.table import COSTS, front_rows
from robusteval.stats.pareto import staircase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_TITLES = {
    "a_id": "clean accuracy, in distribution (A_id, %)",
    "r_id": "robust accuracy, in distribution (R_id, %)",
    "a_ood": "clean accuracy, shifted (A_ood, %)",
    "r_ood": "robust accuracy, shifted (R_ood, %)",
    "train_passes_per_example": "training passes per example",
    "train_wall_s": "training time (s)",
}
"""Column to the title of its axis."""

_SAME_KIND = ({"a_id", "a_ood"}, {"r_id", "r_ood"})
# Okabe and Ito's palette, which stays apart under the common colour-vision deficiencies, with wine for yellow, which
# vanishes on white. The marker changes too, so that colour is never the only difference.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_INK, _SOFT, _GRID = "#222222", "#767676", "#E6E6E6"


@dataclass(frozen=True)
class _Point:
    """One method in one panel; `x` and `y` are `(value, low, high)` in the unit of the axis."""

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    order: int
    ranked: bool


def default_pairs(table: SuiteTable) -> list[tuple[str, str]]:
    """The panels drawn when none is chosen: clean against robust, and the shift that matters for it."""
    has = {column for column in CELLS if any(row.column(column) for row in table.rows)}
    wanted = [("a_id", "r_id"), ("a_ood", "r_ood"), ("a_id", "a_ood")]
    return [pair for pair in wanted if set(pair) <= has][:2]


def scatter(table: SuiteTable, path: Path, x: str | None = None, y: str | None = None) -> Path:
    """Draw the table as a scatter plot with intervals.

    Args:
        table: a scored suite.
        path: file to write, ending in `.png` or `.svg`.
        x: column of the horizontal axis; with `y`, one panel is drawn, without both, two.
        y: column of the vertical axis.

    Returns:
        `path`.

    Raises:
        UsageError: another file type, an unknown column, only one of `x` and `y`, or nothing to draw.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{path}: cannot draw a {path.suffix or 'file without suffix'!r}; write a .png or .svg")
    if (x is None) != (y is None):
        raise UsageError(f"a plot needs both columns or neither, got x={x!r}, y={y!r}")
    pairs = default_pairs(table) if x is None or y is None else [(x, y)]
    for column in (column for pair in pairs for column in pair):
        if column not in AXIS_TITLES:
            raise UsageError(unknown_name("column", column, AXIS_TITLES))
    panels = [(pair, _points(table, *pair)) for pair in pairs]
    if not panels or not all(points for _, points in panels):
        shown = " and ".join(pairs[0]) if pairs else "any two columns"
        raise UsageError(f"suite {table.suite!r} has no method with a result in {shown}; run it first")
    path.write_bytes(_draw(table, panels, path.suffix.lower()[1:]))
    return path


def _points(table: SuiteTable, x: str, y: str) -> list[_Point]:
    points = []
    for order, row in enumerate(table.rows):
        first, second = _span(row, x), _span(row, y)
        if first is not None and second is not None:
            points.append(_Point(row.method, first, second, order, row.ranked))
    return points


def _span(row: MethodScore, column: str) -> tuple[float, float, float] | None:
    found = getattr(row, column)
    if found is None:
        return None
    if isinstance(found, Estimate):
        return 100 * found.value, 100 * found.low, 100 * found.high
    return found, found, found


def _draw(table: SuiteTable, panels: Sequence[tuple[tuple[str, str], list[_Point]]], kind: str) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        # A fixed style, whatever the user's matplotlibrc says; the salt makes the ids inside an SVG repeatable.
        mpl.rcdefaults()
        mpl.rc("svg", hashsalt="robusteval", fonttype="path")
        mpl.rc("font", family="DejaVu Sans", size=9.0)
        mpl.rc("axes", linewidth=0.8)
        figure = Figure(figsize=(5.4 * len(panels) + 0.2, 5.0), dpi=160, facecolor="white")
        FigureCanvasAgg(figure)
        width = 5.4 * len(panels) + 0.2
        figure.subplots_adjust(left=0.62 / width, right=1 - 0.15 / width, bottom=0.175, top=0.91, wspace=0.22)
        for index, (pair, points) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), index + 1)
            _panel(table, axes, pair, points)
        _captions(figure, table)
        buffer = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _captions(figure: Figure, table: SuiteTable) -> None:
    title = f"{table.suite} v{table.version}" + (f": robust under {table.threats[0]}" if table.threats else "")
    figure.text(0.012, 0.95, title, fontsize=10.5, color=_INK, fontweight="bold")
    caption = (
        f"Bars: {100 * table.confidence:.0f} % Wilson intervals over examples.  Filled: on the Pareto front of the "
        "panel (line).  Grey: incomplete, not ranked."
    )
    width = float(figure.get_figwidth())
    if width < 8:
        caption = caption.replace("examples.  ", "examples.\n")
    figure.text(0.012, 0.02, caption, fontsize=7.5, color=_SOFT, linespacing=1.4)


def _panel(table: SuiteTable, axes: Axes, pair: tuple[str, str], points: list[_Point]) -> None:
    x, y = pair
    for column, setter in ((x, axes.set_xscale), (y, axes.set_yscale)):
        setter("log" if column in COSTS else "linear")
    axes.set_xlim(_limits([point.x for point in points], x))
    axes.set_ylim(_limits([point.y for point in points], y))
    _ticks(axes, pair)
    axes.set_xlabel(AXIS_TITLES[x], color=_INK)
    axes.set_ylabel(AXIS_TITLES[y], color=_INK)
    axes.grid(visible=True, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_SOFT, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#B0B0B0")
    if set(pair) in _SAME_KIND:
        axes.axline((0, 0), (100, 100), color=_SOFT, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
    front = set(front_rows(table, pair))
    line = _stairs(axes, pair, [point for point in points if point.name in front])
    for point in points:
        _mark(axes, point, point.name in front)
    _labels(axes, points, line)


def _limits(spans: list[tuple[float, float, float]], column: str) -> tuple[float, float]:
    low, high = min(span[1] for span in spans), max(span[2] for span in spans)
    if column in COSTS:
        return max(low, 1e-3) / 1.6, max(high, 1e-3) * 1.6
    pad = max(0.09 * (high - low), 1.5)
    return max(low - pad, -3.0), min(high + pad, 103.0)


def _ticks(axes: Axes, pair: tuple[str, str]) -> None:
    """Plain numbers on both axes, and none beyond 0 and 100 percent."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    for column, axis in zip(pair, (axes.xaxis, axes.yaxis), strict=True):
        low, high = axis.get_view_interval()
        if column in COSTS:
            narrow = high < 30 * low
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if narrow else (1, 3)))
            axis.set_minor_locator(NullLocator())
        else:
            found = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]).tick_values(max(low, 0.0), min(high, 100.0))
            axis.set_ticks([float(tick) for tick in found if max(low, 0.0) <= tick <= min(high, 100.0)])
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _stairs(axes: Axes, pair: tuple[str, str], points: list[_Point]) -> list[tuple[float, float]]:
    """Draw the line that bounds what the front dominates; returns its vertices."""
    signs = [-1.0 if column in COSTS else 1.0 for column in pair]
    limits = (axes.get_xlim(), axes.get_ylim())
    # The corner lies where both columns are worst: low accuracy, high cost.
    worst = [sign * bounds[0 if sign > 0 else 1] for sign, bounds in zip(signs, limits, strict=True)]
    line = staircase([(signs[0] * p.x[0], signs[1] * p.y[0]) for p in points], (worst[0], worst[1]))
    line = [(signs[0] * x, signs[1] * y) for x, y in line]
    if line:
        xs, ys = [x for x, _ in line], [y for _, y in line]
        axes.plot(xs, ys, color=_INK, linewidth=1.0, alpha=0.45, zorder=2, solid_joinstyle="miter")
    return line


def _colour(point: _Point) -> str:
    return _COLOURS[point.order % len(_COLOURS)] if point.ranked else "#9A9A9A"


def _text_colour(point: _Point) -> str:
    """The marker's colour, darkened until small type can be read on white."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(_colour(point))
    return to_hex((0.68 * red, 0.68 * green, 0.68 * blue))


def _mark(axes: Axes, point: _Point, filled: bool) -> None:
    colour = _colour(point)
    (x, left, right), (y, bottom, top) = point.x, point.y
    axes.errorbar(
        [x], [y], xerr=[[x - left], [right - x]], yerr=[[y - bottom], [top - y]],
        fmt="none", ecolor=colour, elinewidth=1.1, capsize=2.0, capthick=1.1, alpha=0.5, zorder=3,
    )  # fmt: skip
    axes.plot(
        [x], [y], linestyle="none", marker=_MARKERS[point.order % len(_MARKERS)], markersize=7.5, zorder=4,
        markerfacecolor=colour if filled else "white", markeredgecolor=colour, markeredgewidth=1.5,
    )  # fmt: skip


def _labels(axes: Axes, points: list[_Point], line: list[tuple[float, float]]) -> None:
    """Write each method's name beside its marker; a thin line leads to names that had to move away."""
    from matplotlib.patheffects import withStroke

    figure = axes.get_figure(root=True)
    assert figure is not None
    scale = float(figure.dpi) / 72.0
    halo = [withStroke(linewidth=2.2, foreground="white", alpha=0.85)]
    style: dict[str, Any] = {"fontsize": 8.5, "va": "center", "ha": "center", "zorder": 6, "path_effects": halo}
    texts = [axes.text(0, 0, point.name, color=_text_colour(point), **style) for point in points]
    extents = [text.get_window_extent() for text in texts]
    sizes = [(float(extent.width), float(extent.height)) for extent in extents]
    anchors = [_pixels(axes, (point.x[0], point.y[0])) for point in points]
    obstacles = [bar for point in points for bar in _bars(axes, point, scale)]
    corners = [_pixels(axes, corner) for corner in line]
    obstacles += [Box.spanning(start, end, scale) for start, end in pairwise(corners)]
    frame = axes.get_window_extent()
    inside = Box(frame.x0, frame.y0, frame.x1, frame.y1)
    centres = place_labels(anchors, sizes, obstacles, inside, gap=7.0 * scale)
    back = axes.transData.inverted()
    for point, text, centre, anchor, size in zip(points, texts, centres, anchors, sizes, strict=True):
        x, y = back.transform(centre)
        text.set_position((float(x), float(y)))
        edge = Box.around(centre, *size).nearest(anchor)
        if math.dist(edge, anchor) > 14.0 * scale:
            ends = back.transform([anchor, edge])
            axes.plot(ends[:, 0], ends[:, 1], color=_colour(point), linewidth=0.6, alpha=0.8, zorder=2.5)


def _pixels(axes: Axes, place: tuple[float, float]) -> tuple[float, float]:
    x, y = axes.transData.transform(place)
    return float(x), float(y)


def _bars(axes: Axes, point: _Point, scale: float) -> list[Box]:
    """Boxes in pixels around the marker and the two error bars of a point."""
    (x, left, right), (y, bottom, top) = point.x, point.y
    corners = [(x, y), (left, y), (right, y), (x, bottom), (x, top)]
    centre, west, east, south, north = [_pixels(axes, corner) for corner in corners]
    marker = Box.around(centre, 9.0 * scale, 9.0 * scale)
    return [marker, Box.spanning(west, east, 2.0 * scale), Box.spanning(south, north, 2.0 * scale)]
