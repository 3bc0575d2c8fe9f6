"""Text from files and from other libraries, made fit for a message."""

from __future__ import annotations

LONGEST = 400  # characters


def one_line(text: object, longest: int = LONGEST) -> str:
    """The text of an error or of a file in one line: spaces collapsed, what cannot be printed (terminal codes, for
    instance) written as its code, the end of a very long one left out. An error without text is named by its type."""
    words = " ".join(str(text).split())
    if not words and isinstance(text, BaseException):
        words = type(text).__name__
    words = words if len(words) <= longest else words[: longest - 4] + " ..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
