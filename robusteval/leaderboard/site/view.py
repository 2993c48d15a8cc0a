"""What the page of a board shows, as plain values: every number already in words, every text still unescaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusteval.leaderboard.boards import Board
from robusteval.leaderboard.entries import Entry
from robusteval.leaderboard.evidence import Evidence
from robusteval.leaderboard.ranking import Front, Group, GroupName, shown_value
from robusteval.leaderboard.rules import RankRules, rank_rules
from robusteval.leaderboard.site.figure import Dot, scatter_svg
from robusteval.leaderboard.tables import place_text, ties_text, value_text
from robusteval.scoring.effective import DRAWS, Effective, Trend, effective_robustness, fit_trend
from robusteval.stats.aggregate import Strength
from robusteval.stats.front import resampled
from robusteval.stats.trend import Line

_HEADINGS = {"measured": "Measured entries", "reported": "Reported entries"}
_CURVE = 40
_TASKS = 4
"""Fewest columns that an interval over columns is drawn from."""


@dataclass(frozen=True)
class FittedTrend:
    """A line through the entries of a group, and their distances from it."""

    trend: Trend
    distances: Sequence[Effective]


def percent_scale(board: Board, key: str) -> float:
    """Factor from a stored value to a shown one."""
    return 100.0 if board.column(key).unit == "accuracy" else 1.0


def fit_trends(board: Board, group: Group, evidence: Evidence | None = None) -> list[FittedTrend]:
    """Lines for the pairs of the board that have one kind of accuracy, clean or robust, on both axes.

    Args:
        board: the board.
        group: entries of one kind.
        evidence: their outcomes; with them, the interval of a distance comes from drawing the same examples again for
            both columns and all entries.
    """
    found = []
    for x, y in board.pairs:
        same = x[:2] == y[:2] and x[:2] in ("a_", "r_")
        own = [entry for entry in group.entries if x in entry.columns and y in entry.columns]
        points = {entry.id: (entry.columns[x].value, entry.columns[y].value) for entry in own}
        if not same or len({point[0] for point in points.values()}) < 2:
            continue
        examples = board.ties.examples
        trend = fit_trend((board.column(x).title, board.column(y).title), points, "logit", examples)
        trend = trend.model_copy(update={"x": x, "y": y})
        drawn = None if trend.refused or evidence is None else _drawn(evidence, own, (x, y))
        found.append(FittedTrend(trend, effective_robustness(trend, points, points, examples, drawn=drawn)))
    return found


def _drawn(evidence: Evidence, entries: Sequence[Entry], pair: tuple[str, str]) -> NDArray[np.float64] | None:
    panels = [evidence.panel(entries, key) for key in pair]
    paired = [panel for panel in panels if panel is not None]
    return resampled(paired, resamples=DRAWS) if len(paired) == len(pair) else None


def rests_of(board: Board, trends: Sequence[FittedTrend]) -> dict[str, list[str]]:
    """Id to its distances from the lines of its group, in words."""
    found: dict[str, list[str]] = {}
    for one in trends:
        names = f"{board.column(one.trend.y).title} given {board.column(one.trend.x).title}"
        for rest in one.distances:
            found.setdefault(rest.model, []).append(f"{names}: {_points(rest)}")
    return found


def _points(rest: Effective) -> str:
    return f"{100 * rest.rho:+.1f} [{100 * rest.low:+.1f}, {100 * rest.high:+.1f}]"


def group_view(board: Board, group: Group, trends: Sequence[FittedTrend]) -> dict[str, Any]:
    """One table of the page with what stands under it."""
    order = ", then ".join(board.column(key).title for key in board.order)
    return {
        "name": group.name,
        "heading": _HEADINGS[group.name],
        "order": order,
        "ties": ties_text(board, group),
        "rows": [_row(board, group, entry) for entry in group.entries],
        "fronts": [_front(board, front) for front in group.fronts],
        "trends": [_trend(board, one) for one in trends],
        "rules": _rules(board, rank_rules(board, group)),
    }


def _row(board: Board, group: Group, entry: Entry) -> dict[str, Any]:
    place = group.places[entry.id]
    cells = [
        {"text": value_text(board, key, entry.columns.get(key)), "number": _number(entry, key)} for key in board.keys
    ]
    extra = {True: "yes", False: "no", None: ""}[entry.claims.extra_data]
    return {
        "id": entry.id,
        "badge": entry.badge,
        "title": entry.claims.title,
        "rank": "" if place.rank is None else place.rank,
        "place": place_text(place),
        "best": place.rank == 1,
        "cells": cells,
        "chances": [_chance(front, entry.id) for front in group.fronts],
        "architecture": entry.claims.architecture,
        "extra": "true" if entry.claims.extra_data else "false",
        "extra_text": extra,
        "flags": ", ".join(entry.flags),
    }


def _chance(front: Front, name: str) -> dict[str, Any]:
    chance = front.probability.get(name)
    if chance is None:
        return {"text": "-", "number": ""}
    if not front.drawn:
        return {"text": "yes" if name in front.on else "no", "number": chance}
    return {"text": f"{100 * chance:.0f} %", "number": chance}


def _number(entry: Entry, key: str) -> str:
    return repr(entry.columns[key].value) if key in entry.columns else ""


def _front(board: Board, front: Front) -> dict[str, Any]:
    volume, low, high = front.volume
    listed = sorted(front.on, key=lambda name: (-front.probability[name], name))
    return {
        "titles": [board.column(key).title for key in front.pair],
        "volume": f"{volume:.4g} [{low:.4g}, {high:.4g}]" if front.drawn else f"{volume:.4g}",
        "on": [
            {
                "id": name,
                "chance": f"{100 * front.probability[name]:.0f} %" if front.drawn else "unknown",
                "adds": f"{front.contribution[name]:.2g}",
            }
            for name in listed
        ],
    }


def _trend(board: Board, fitted: FittedTrend) -> dict[str, Any]:
    trend = fitted.trend
    text = (
        f"{board.column(trend.y).title} on {board.column(trend.x).title}: slope {trend.slope:.3f}, intercept "
        f"{trend.intercept:.3f}, R² {trend.r2:.3f} [{trend.r2_low:.3f}, {trend.r2_high:.3f}], {trend.n} models; "
        f"median line: slope {trend.median_slope:.3f}."
    )
    far = sorted((one for one in fitted.distances if one.outlier), key=lambda one: (-abs(one.rho), one.model))
    outliers = [{"id": one.model, "rho": _points(one)} for one in far[:12]]
    ordered = sorted(fitted.distances, key=lambda one: (-one.rho, one.model))
    rests = [{"id": one.model, "rho": _points(one)} for one in ordered]
    return {"text": text, "refused": trend.refused, "outliers": outliers, "rests": rests}


def _rules(board: Board, rules: RankRules | None) -> dict[str, Any] | None:
    if rules is None:
        return None
    rows = [
        {
            "id": name,
            "rank": f"{rank:.2f}",
            "rate": f"{100 * rules.win_rate[name]:.1f} %" if rules.win_rate else "-",
            "strength": strength_text(rules.strength[name], len(rules.columns)) if rules.strength else "-",
        }
        for name, rank in sorted(rules.mean_rank.items(), key=lambda item: (item[1], item[0]))
    ]
    return {
        "columns": ", ".join(board.column(key).title for key in rules.columns),
        "rows": rows,
        "agreement": agreement_table(rules.agreement),
    }


def strength_text(found: Strength, tasks: int) -> str:
    """A Bradley-Terry strength, with its interval where there are tasks enough to draw from."""
    text = f"{found.value:+.0f}"
    return text if tasks < _TASKS else f"{text} [{found.low:+.0f}, {found.high:+.0f}]"


def agreement_table(agreement: Mapping[tuple[str, str], float]) -> dict[str, Any] | None:
    """Kendall's tau of each pair of rules as a table, the lower left half empty; None if there is no pair."""
    names = list(dict.fromkeys(name for pair in agreement for name in pair))
    rows = [
        {
            "name": first,
            "cells": [
                f"{agreement[first, second]:.2f}" if (first, second) in agreement else "" for second in names[1:]
            ],
        }
        for first in names[:-1]
    ]
    return {"names": names[1:], "rows": rows} if names else None


def page_data(
    board: Board, groups: Sequence[Group], trends: Mapping[GroupName, Sequence[FittedTrend]]
) -> dict[str, Any]:
    """What the script of the page reads: shown values with half widths, and curves."""
    columns = [
        {"key": column.key, "title": column.title, "unit": column.unit, "higher": column.higher_is_better}
        for column in board.columns
    ]
    listed = []
    for group in groups:
        rows = [
            {
                "id": entry.id,
                "title": entry.claims.title,
                "values": {key: _pair(board, key, entry) for key in board.keys if key in entry.columns},
            }
            for entry in group.entries
        ]
        curves = [_curve(one.trend, group) for one in trends[group.name]]
        rests = {
            f"{one.trend.x},{one.trend.y}": {rest.model: _points(rest) for rest in one.distances}
            for one in trends[group.name]
        }
        listed.append({"name": group.name, "rows": rows, "trends": curves, "rests": rests})
    return {"columns": columns, "pairs": [",".join(pair) for pair in board.pairs], "groups": listed}


def _pair(board: Board, key: str, entry: Entry) -> list[float]:
    scale, shown = percent_scale(board, key), shown_value(board, key, entry.columns[key])
    half = 0.0 if shown.low is None or shown.high is None else (shown.high - shown.low) / 2
    return [round(scale * shown.value, 4), round(scale * half, 4)]


def _curve(trend: Trend, group: Group) -> dict[str, Any]:
    own = [entry.columns[trend.x].value for entry in group.entries if trend.x in entry.columns]
    low, high = min(own), max(own)
    xs = [low + (high - low) * step / (_CURVE - 1) for step in range(_CURVE)]
    ys = Line(trend.slope, trend.intercept, trend.r2, trend.n, trend.scale).predict(xs)
    return {
        "x": trend.x,
        "y": trend.y,
        "r2": f"{trend.r2:.2f}",
        "xs": [round(100 * x, 3) for x in xs],
        "ys": [round(100 * float(y), 3) for y in ys],
    }


def figures(board: Board, groups: Sequence[Group]) -> list[dict[str, str]]:
    """A picture for each pair of the board on whose axes larger is better."""
    found = []
    for x, y in board.pairs:
        if not (board.column(x).higher_is_better and board.column(y).higher_is_better):
            continue
        dots = []
        for group in groups:
            for entry in group.entries:
                if x in entry.columns and y in entry.columns:
                    (across, across_half), (up, up_half) = _pair(board, x, entry), _pair(board, y, entry)
                    dots.append(Dot(entry.id, across, up, across_half, up_half, group.name == "measured"))
        titles = (board.column(x).title, board.column(y).title)
        svg = scatter_svg(dots, titles, diagonal=board.column(x).unit == board.column(y).unit)
        if svg:
            caption = f"{titles[1]} against {titles[0]}. The stair is the Pareto front, the dotted line x = y."
            found.append({"svg": svg, "caption": caption})
    return found
