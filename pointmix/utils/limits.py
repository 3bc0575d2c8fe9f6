"""Limits on the memory and time that the content of a file may take.

A small file can ask for much memory: an array of zeros is compressed a thousandfold, a header can state any size. Each
limit is checked before memory is allocated. The environment variable POINTMIX_MAX_NAME overrides the limit NAME, in
worker processes as well.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DEFAULTS = {
    "IMAGE_PIXELS": 89_478_485,  # Pillow's default, above which it warns
    "ARRAY_BYTES": 2 << 30,
    "METADATA_BYTES": 4 << 20,
    "ANNOTATION_BYTES": 1 << 30,  # of a file with the annotations of many images
    "YAML_VALUES": 100_000,
}


class TooLarge(ValueError):
    """A file exceeds a limit."""


def limit(name: str) -> int:
    """The current limit.

    Raises:
        ValueError: if its environment variable is not a positive integer.
    """
    variable = f"POINTMIX_MAX_{name}"
    text = os.environ.get(variable, "")
    if not text:
        return DEFAULTS[name]
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise ValueError(f"the environment variable {variable} is {text[:40]!r}, expected a positive whole number")
    return int(text)


def check_limit(name: str, asked: int, what: str) -> None:
    """Raise TooLarge if more is asked for than a limit allows.

    Raises:
        TooLarge: with the limit and the environment variable that raises it.
    """
    if asked > limit(name):
        unit = name.split("_")[1].lower()
        raise TooLarge(
            f"{what} has {asked} {unit}, more than the limit of {limit(name)}; for a source that you trust, raise it "
            f"with the environment variable POINTMIX_MAX_{name}"
        )


def check_array(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Raise TooLarge for an array of more bytes than the limit ARRAY_BYTES."""
    check_limit("ARRAY_BYTES", math.prod(shape) * itemsize, f"{what} {tuple(shape)}")


def regular_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """The path of a regular file; reading a pipe or a device might never end.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is a folder, a pipe, a socket or a device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as e:  # ValueError: a null byte in the name
        raise FileNotFoundError(f"no {what} {path}".replace("\0", "\\0")) from e
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise ValueError(f"{path} is {kind}, not a regular {what}")
    return path


@contextmanager
def parameters_at_most(tensors: int, values: int) -> Iterator[None]:
    """Within this context, refuse networks with many more parameters than weights of this size can fill.

    Some networks build their last layer twice, so a few times as many are allowed.

    Args:
        tensors, values: of the weights.

    Raises:
        TooLarge: as soon as a network is larger, before it is complete.
    """
    from torch import nn

    found = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            found[0] += 1
            found[1] += parameter.numel()
            if found[0] > 4 * tensors + 1000 or found[1] > 4 * values + 1_000_000:
                raise TooLarge(f"it is much larger than the weights, {tensors} tensors of {values} values in all")

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
