from __future__ import annotations

import pytest

from pointmix.messages import one_line


@pytest.mark.parametrize(
    "text, line",
    [
        ("a\n  b\tc", "a b c"),
        ("\x1b[31mred\x1b[0m\x07", r"\x1b[31mred\x1b[0m\x07"),
        ("a\u202eb", r"a\u202eb"),  # turns the direction of writing
        ("Ünïcode 😀", "Ünïcode 😀"),
        (ValueError("no\nway"), "no way"),
        (EOFError(), "EOFError"),
        ("", ""),
        ("x" * 500, "x" * 396 + " ..."),
    ],
)
def test_one_line(text, line):
    assert one_line(text) == line and one_line(text).isprintable()
