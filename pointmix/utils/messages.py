"""Texts of files and other libraries, made fit for an error message."""

from __future__ import annotations

import sys

LONGEST = 400  # characters
NO_MEMORY = ("can't allocate memory", "MemoryError")  # torch's message; in a worker's traceback


def one_line(text: object, longest: int = LONGEST) -> str:
    """A text in one line: whitespace collapsed, unprintable characters (such as terminal codes) escaped, truncated to
    `longest` characters. An error without text becomes the name of its type."""
    words = " ".join(str(text).split())
    if not words and isinstance(text, BaseException):
        words = type(text).__name__
    words = words if len(words) <= longest else words[: longest - 4] + " ..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural if it is not one: "1 class", "2 classes", "3 points"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether NumPy, Pillow or torch ran out of memory, in this process or in a worker."""
    torch = sys.modules.get("torch")  # without which nothing can run out of a GPU's memory
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
