"""Files of `torch.save`, read without executing anything that they name."""

from __future__ import annotations

import io
import os
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import torch

from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

MAX_NAME_LENGTH = 300  # characters of a type's qualified name


class Aside:
    """Placeholder for a harmless value that is not needed, whatever its constructor arguments."""

    def __new__(cls, *_: Any, **__: Any) -> Aside:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _empty_dict(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


# Types that trainers store next to weights. None is imported or called when a file is read, not even numpy's.
_SET_ASIDE = (
    *(f"numpy.{n}" for n in ("dtype", "ndarray")),
    *(f"numpy.{c}.multiarray.{n}" for c in ("core", "_core") for n in ("scalar", "_reconstruct")),
    *(f"numpy.{c}.numeric._frombuffer" for c in ("core", "_core")),
    *(f"pathlib.{m}{k}" for m in ("", "_local.") for k in ("PosixPath", "PurePosixPath", "WindowsPath")),
    *(f"pathlib.{m}PureWindowsPath" for m in ("", "_local.")),
    *(f"builtins.{n}" for n in ("slice", "range", "frozenset", "list", "dict", "int", "float", "str", "tuple")),
    *(f"datetime.{n}" for n in ("datetime", "date", "time", "timedelta", "timezone")),
    *("argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "fractions.Fraction"),
)


def load_torch(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """The content of a `torch.save` file, on the CPU: tensors, plain values, and containers of them.

    NumPy scalars and arrays, paths, dates and parser arguments become `Aside` objects, a defaultdict an OrderedDict. A
    file that names any other type is refused.

    Args:
        mmap: memory-map the tensors instead of reading them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: with the reason alone, in one line.
    """
    path = regular_file(path, "checkpoint file")
    if reason := _not_by_torch(path):
        raise ValueError(reason)
    known: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(Aside, name) for name in _SET_ASIDE]
    known.append((_empty_dict, "collections.defaultdict"))
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, "cpu", weights_only=True, mmap=mmap)
    except OSError:
        raise
    except Exception as e:  # a damaged file can break the reader in any way
        raise ValueError(_why(e)) from e


def _not_by_torch(path: Path) -> str | None:
    """Why this cannot be a file of torch.save, judged by its first bytes and its table of contents."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "it is empty"
    if head.lstrip()[:1] == b"<":
        return "it is a web page (HTML or XML); the download went wrong"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer to the file, left by Git LFS; fetch the file itself with git lfs pull"
    if head[8:9] == b"{":
        return "it is a safetensors file; give it a name that ends in .safetensors"
    try:
        if head.startswith(b"PK"):
            size = path.stat().st_size
            with zipfile.ZipFile(path) as archive:
                held = sum(info.file_size for info in archive.infolist())
                if held > size:  # torch compresses nothing
                    return f"it is a file of {size} bytes that claims to hold {held}"
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        _check_names(io.BytesIO(archive.read(name)))
        elif head.startswith(b"\x80"):
            with open(path, "rb") as file:
                for _ in range(5):  # torch before 1.6: magic number, two versions, content, storage keys
                    _check_names(file)
        elif head[257:262] != b"ustar":
            return "it was not written by torch.save"
    except Exception as e:
        return f"it is damaged or cut off: {one_line(e)}"
    return None


def _check_names(file: BufferedIOBase) -> None:
    """Scan a pickle without executing it for very long type names, for which torch takes minutes to refuse them."""
    for operation, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]  # IO[bytes] is narrower than needed
        if operation.name == "GLOBAL" and isinstance(argument, str) and len(argument) > MAX_NAME_LENGTH:
            raise ValueError(f"it names a type with {len(argument or '')} characters")


def _why(error: Exception) -> str:
    """torch's reason, without its advice to load the file with arbitrary code execution."""
    text = str(error)
    found = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", text)
    if found:
        kind = one_line(found[1], 80)
        return f"it holds {kind}, which is not loaded; expected tensors, numbers, text and containers of them"
    if "TorchScript" in text:
        return "it is a TorchScript program, expected what torch.save writes of a state dict"
    if "Weights only load failed" in text or not text:
        return "it was not written by torch.save, or is damaged"
    return f"it is damaged: {one_line(text.split('. ')[0], 200)}"
