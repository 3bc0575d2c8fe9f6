"""How much memory and time the content of one file may ask for.

A small file can ask for much: an array of zeros is compressed a thousandfold, a header can name any size. Each limit is
checked before the memory is taken, and an environment variable, POINTMIX_MAX_ and its name, sets another; it holds in
the worker processes too.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

DEFAULTS = {
    "IMAGE_PIXELS": 89_478_485,  # where Pillow begins to warn
    "ARRAY_BYTES": 2 << 30,
    "METADATA_BYTES": 4 << 20,
    "YAML_VALUES": 100_000,
}


class TooLarge(ValueError):
    """A file asks for more than a limit allows."""


def limit(name: str) -> int:
    """The limit in force.

    Raises:
        ValueError: if its environment variable is set to anything but a positive whole number.
    """
    variable = f"POINTMIX_MAX_{name}"
    text = os.environ.get(variable, "")
    if not text:
        return DEFAULTS[name]
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise ValueError(f"the environment variable {variable} is {text[:40]!r}, expected a positive whole number")
    return int(text)


def check_limit(name: str, asked: int, what: str) -> None:
    """Refuse to go on where more is asked for than the limit of this name allows.

    Raises:
        TooLarge: naming the limit and the variable that sets another.
    """
    if asked > limit(name):
        unit = name.split("_")[1].lower()
        raise TooLarge(
            f"{what} has {asked} {unit}, more than the limit of {limit(name)}; for a source that you trust, raise it "
            f"with the environment variable POINTMIX_MAX_{name}"
        )


def check_array(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Refuse an array of more bytes than the limit ARRAY_BYTES.

    Raises:
        TooLarge: naming the limit.
    """
    check_limit("ARRAY_BYTES", math.prod(shape) * itemsize, f"{what} {tuple(shape)}")


def regular_file(path: str | os.PathLike, what: str = "file") -> Path:
    """The path, if it names a regular file; a pipe or a device could be read forever.

    Raises:
        FileNotFoundError: if nothing is there.
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
    """While networks are built here, refuse more parameters than weights of so many tensors and values can fill.

    Some networks build their last layer twice, so there is room for a few times as many.

    Raises:
        TooLarge: as soon as the network is larger, before it is built to its end.
    """
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
