"""A scatter of two columns as SVG, for readers without JavaScript and for print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from robusteval.stats.pareto import staircase

WIDTH, HEIGHT = 640, 440
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 44
_STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0)


@dataclass(frozen=True)
class Dot:
    """One entry in the plane, in shown units.

    Attributes:
        label: name for the tooltip.
        x: value.
        y: value.
        x_half: half width of its interval, 0 if there is none.
        y_half: the same.
        measured: whether it was measured here.
    """

    label: str
    x: float
    y: float
    x_half: float
    y_half: float
    measured: bool


def scatter_svg(dots: Sequence[Dot], titles: tuple[str, str], *, diagonal: bool) -> str:
    """Points with error bars, the staircase of those that nothing dominates, and the line x = y.

    Args:
        dots: entries; larger is better on both axes.
        titles: names of the axes.
        diagonal: whether both axes have one unit, so that x = y means something.
    """
    if not dots:
        return ""
    plane = _Plane(dots)
    parts = [
        f'<svg class="scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(titles[1])} against {escape(titles[0])}">'
    ]
    parts += plane.axes(titles)
    if diagonal:
        parts.append(plane.diagonal())
    steps = staircase([(dot.x, dot.y) for dot in dots], (plane.x[0], plane.y[0]))
    parts.append(f'<polyline class="front" points="{" ".join(plane.place(x, y) for x, y in steps)}"/>')
    for dot in sorted(dots, key=lambda dot: (dot.measured, dot.label)):
        parts += plane.dot(dot)
    return "".join([*parts, "</svg>"])


class _Plane:
    """Where shown values are in the picture.

    Args:
        dots: what must fit.
    """

    def __init__(self, dots: Sequence[Dot]) -> None:
        self.x = _span([dot.x for dot in dots])
        self.y = _span([dot.y for dot in dots])

    def across(self, x: float) -> float:
        share = (x - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)

    def down(self, y: float) -> float:
        share = (y - self.y[0]) / (self.y[1] - self.y[0])
        return HEIGHT - BOTTOM - min(1.0, max(0.0, share)) * (HEIGHT - TOP - BOTTOM)

    def place(self, x: float, y: float) -> str:
        return f"{self.across(x):.1f},{self.down(y):.1f}"

    def axes(self, titles: tuple[str, str]) -> list[str]:
        floor, wall = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = [f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{wall - LEFT}" height="{floor - TOP}"/>']
        for value in _ticks(self.x):
            at = self.across(value)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{floor}"/>')
            parts.append(f'<text x="{at:.1f}" y="{floor + 16}" text-anchor="middle">{value:g}</text>')
        for value in _ticks(self.y):
            at = self.down(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{wall}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
        middle = (TOP + floor) // 2
        parts.append(f'<text x="{(LEFT + wall) // 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(titles[0])}</text>')
        turn = f"translate(14 {middle}) rotate(-90)"
        parts.append(f'<text transform="{turn}" text-anchor="middle">{escape(titles[1])}</text>')
        return parts

    def diagonal(self) -> str:
        low, high = max(self.x[0], self.y[0]), min(self.x[1], self.y[1])
        if low >= high:
            return ""
        return f'<polyline class="diagonal" points="{self.place(low, low)} {self.place(high, high)}"/>'

    def dot(self, dot: Dot) -> list[str]:
        x, y = self.across(dot.x), self.down(dot.y)
        parts = []
        if dot.x_half > 0:
            left, right = self.across(dot.x - dot.x_half), self.across(dot.x + dot.x_half)
            parts.append(f'<line class="bar" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if dot.y_half > 0:
            low, high = self.down(dot.y - dot.y_half), self.down(dot.y + dot.y_half)
            parts.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        kind = "measured" if dot.measured else "reported"
        title = f"<title>{escape(dot.label)}: {dot.x:.4g}, {dot.y:.4g}</title>"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>')
        return parts


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _ticks(span: tuple[float, float]) -> list[float]:
    step = next((step for step in _STEPS if (span[1] - span[0]) / step <= 8), (span[1] - span[0]) / 6)
    first = int(span[0] // step) + 1
    return [round(step * index, 6) for index in range(first, first + 12) if step * index <= span[1]]
