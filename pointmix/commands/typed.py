"""The command as the user typed it: `pointmix explain`, or `python scripts/explain.py`."""

from __future__ import annotations

import re


def typed(prog: str) -> str:
    """The start of a command line that runs this command again.

    Args:
        prog: name of the command in messages, such as "pointmix explain" or "explain.py".
    """
    return f"python scripts/{prog}" if prog.endswith(".py") else prog


def described(doc: str | None, command: str, prog: str) -> str:
    """A docstring whose examples are lines that start with `command`, with what the user typed in its place."""
    return re.sub(rf"^{command}", typed(prog), doc or "", flags=re.MULTILINE)
