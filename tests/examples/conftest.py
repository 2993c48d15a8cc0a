"""The tests of the examples run inside copies of them, not here."""

from __future__ import annotations

collect_ignore = ["shop"]
