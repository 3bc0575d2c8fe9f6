"""The type of values that come from JSON."""

from __future__ import annotations

from typing import Any

Json = Any  # null, true, false, a number, a text, a list or a dict of such: whoever reads one checks what it is
