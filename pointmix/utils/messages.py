"""What files and other libraries say, made fit for a message."""

from __future__ import annotations

import torch

LONGEST = 400  # characters
NO_MEMORY = ("can't allocate memory", "MemoryError")  # of torch; of a worker's traceback


def one_line(text: object, longest: int = LONGEST) -> str:
    """The text of an error or of a file in one line: spaces collapsed, what cannot be printed (terminal codes, for
    instance) written as its code, the end of a very long one left out. An error without text is named by its type."""
    words = " ".join(str(text).split())
    if not words and isinstance(text, BaseException):
        words = type(text).__name__
    words = words if len(words) <= longest else words[: longest - 4] + " ..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is NumPy's, Pillow's or torch's way to say that there is not enough memory, here or in a worker."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
