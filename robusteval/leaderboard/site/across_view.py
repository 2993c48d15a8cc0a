"""What the index shows about rows that several boards measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robusteval.leaderboard.across import Standing, across_boards
from robusteval.leaderboard.site.view import agreement_table, strength_text


def across_view(standings: Mapping[str, Standing]) -> dict[str, Any] | None:
    """Rows over boards in words; None where no two boards share two rows."""
    found = across_boards(standings)
    if found is None:
        return None
    rows = [
        {
            "label": label,
            "boards": found.found[label],
            "rate": f"{100 * rate:.1f} %",
            "strength": strength_text(found.strength[label], len(found.boards)),
        }
        for label, rate in sorted(found.win_rate.items(), key=lambda item: (-item[1], item[0]))
    ]
    return {"boards": found.boards, "rows": rows, "agreement": agreement_table(found.agreement)}
