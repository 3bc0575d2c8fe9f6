"""Labels of whole clouds in files that hold many."""

from __future__ import annotations

import numpy as np

from pointmix.io.validate import check_read
from pointmix.utils.messages import one_line

LONGEST = 200  # characters of the name of a class
LARGEST = 2**53  # whole number that a float64 holds exactly


def label_values(name: str, found: object, clouds: int) -> list[int] | list[str]:
    """The labels of some clouds as numbers or text.

    Args:
        name: of the labels, for messages.
        found: an array (n,) or (n, 1), or for one cloud a single value, of whole numbers or text; of a NumPy array, an
            HDF5 dataset or attribute, or a plain value.
        clouds: n.

    Raises:
        ValueError: if it is anything else, or text is longer than 200 characters.
    """
    if hasattr(found, "keys"):
        raise ValueError(f"{name} is a group, expected an array")
    array: np.ndarray = found if hasattr(found, "dtype") else np.asarray(found)  # type: ignore[assignment]
    shape, kind = tuple(array.shape or ()), array.dtype.kind
    if shape not in {(clouds,), (clouds, 1), *([()] if clouds == 1 else [])}:
        raise ValueError(f"{name} is {shape}, expected ({clouds},), one a cloud")
    if kind == "O":  # of text of any length; one by one, so that repeated long text takes no memory
        return [_text(name, array[place]) for place in np.ndindex(shape)]
    check_read(array, shape, name)
    values = np.asarray(array[()]).reshape(-1)
    if kind in "US":
        return [_text(name, value) for value in values.tolist()]
    if kind not in "uif" or not (np.isfinite(values) & (values == np.rint(values))).all():
        raise ValueError(f"{name} has values of {values.dtype} that are not whole, expected whole numbers or text")
    if (large := values[np.abs(values.astype(np.float64)) > LARGEST]).size:
        raise ValueError(f"{name} has the value {large[0]}, expected numbers of at most 2^53")
    return [int(value) for value in values]


def _text(name: str, value: object) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
        shown = one_line(repr(text), 40)
        raise ValueError(f"{name} has the value {shown}, expected a number, or text of 1 to {LONGEST} characters")
    return text
