from __future__ import annotations

import pytest
import torch

from pointmix.utils.messages import counted, is_out_of_memory, one_line


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


def test_nouns_follow_their_number():
    assert [counted(n, "class") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert [counted(n, "point") for n in (0, 1, 2)] == ["0 points", "1 point", "2 points"]


NO_MEMORY = [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("you can't allocate memory")]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_want_of_memory(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("a MemoryError is no ValueError")])
def test_other_errors(error):
    assert not is_out_of_memory(error)
