"""Regression verdicts as plain cells, text, Markdown and a comment for a pull request."""

from __future__ import annotations

from typing import Any

from robusteval.scoring.verdicts import CellVerdict, ModelComparison

_WORDS = {
    "pass": "no regression",
    "regressed": "regressed",
    "suspect": "suspect: a reason for doubt is new",
    "inconclusive": "inconclusive: the check could not have seen it",
}


def to_rows(comparison: ModelComparison) -> tuple[list[str], list[list[str]]]:
    """Header and one line of text cells for each cell of the comparison."""
    header = ["cell", "base", "candidate", "difference", "losses", "gains", "n", "p Holm", "would decide", "verdict"]
    named = any(cell.row for cell in comparison.cells)
    rows = [([cell.row] if named else []) + _row(cell) for cell in comparison.cells]
    return (["row"] if named else []) + header, rows


def _row(cell: CellVerdict) -> list[str]:
    gap = cell.difference
    return [
        cell.title,
        f"{100 * cell.base:.1f}",
        f"{100 * cell.candidate:.1f}",
        f"{_points(gap.value)} [{_points(gap.low)}, {_points(gap.high)}]",
        str(cell.losses),
        str(cell.gains),
        str(cell.n),
        f"{cell.p_holm:.2g}",
        f"n = {cell.needed}" if cell.needed is not None else "",
        cell.verdict,
    ]


def headline(comparison: ModelComparison) -> str:
    """The verdict in one line."""
    return f"{comparison.candidate} against {comparison.base}: {_WORDS[comparison.verdict]}"


def notes(comparison: ModelComparison) -> list[str]:
    """Sentences that say why each cell has its verdict, then how to read the numbers."""
    lines = [
        f"{cell.row + ' ' if cell.row else ''}{cell.title}: {cell.verdict}, {cell.reason}."
        for cell in comparison.cells
        if cell.verdict != "pass"
    ]
    return [*lines, _how(comparison)]


def _how(comparison: ModelComparison) -> str:
    rule, count = comparison.rule, len(comparison.cells)
    units = {
        "examples": "over examples",
        "attack_seeds": "over examples, attack seeds averaged",
        "train_seeds": "over training seeds and examples",
    }
    if rule.margin is not None:
        what = f"margin {100 * rule.margin:g} points, paired interval at one-sided {rule.alpha:g}"
    else:
        smallest = max(cell.detectable for cell in comparison.cells)
        test = "exact McNemar" if rule.unit == "examples" else "bootstrap"
        what = (
            f"one-sided {test} test, alpha {rule.alpha:g} with Holm over {count} cell{'s' if count > 1 else ''}; asked "
            f"to see {100 * rule.sensitivity:g} points, the least sensitive cell sees {100 * smallest:.2g} with "
            f"{100 * rule.power:g} % power"
        )
    level = f"{100 * comparison.cells[0].confidence:g} %"
    return f"Accuracies in percent, differences in points [{level}]; {what}; noise {units[rule.unit]}."


def to_text(comparison: ModelComparison) -> str:
    """The whole comparison for a terminal or a failed assertion."""
    header, rows = to_rows(comparison)
    widths = [max(len(line[index]) for line in (header, *rows)) for index in range(len(header))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    ]
    return "\n".join([headline(comparison), "", *table, "", *notes(comparison)])


def to_markdown(comparison: ModelComparison) -> str:
    """A Markdown table with the notes under it."""
    return "\n".join([*_table(comparison), "", *(f"- {note}" for note in notes(comparison)), ""])


def to_github(comparison: ModelComparison) -> str:
    """A comment for a pull request: the verdict as heading, the table, and the notes folded where all is well."""
    listed = [f"- {note}" for note in notes(comparison)]
    if comparison.verdict == "pass":
        listed = ["<details><summary>How this was tested</summary>", "", *listed, "", "</details>"]
    title = f"### Robustness: {_WORDS[comparison.verdict]}"
    names = f"`{comparison.candidate}` against `{comparison.base}`"
    return "\n".join([title, "", names, "", *_table(comparison), "", *listed, ""])


def _table(comparison: ModelComparison) -> list[str]:
    header, rows = to_rows(comparison)
    first = header.index("cell") + 1
    rule = ["---"] * first + ["---:"] * (len(header) - first - 1) + ["---"]
    bold = [[*row[:-1], row[-1] if row[-1] == "pass" else f"**{row[-1]}**"] for row in rows]
    return [_pipes(header), _pipes(rule), *map(_pipes, bold)]


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_json(comparison: ModelComparison) -> dict[str, Any]:
    """Every number, fractions at full precision, and the overall verdict."""
    return {"verdict": comparison.verdict, **comparison.model_dump(mode="json")}


def _points(fraction: float) -> str:
    # Adding zero turns the negative zero of rounding into a plain one.
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"
