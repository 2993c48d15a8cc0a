"""`python -m robusteval` is the `robusteval` command."""

from __future__ import annotations

from robusteval.cli.main import main

if __name__ == "__main__":
    main()
