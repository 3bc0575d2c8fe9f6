"""Functions that numba compiles at their first call and keeps on disk where there is a place for it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from numba import njit

OPTIONS = {"nogil": True, "error_model": "numpy"}
BROKEN = (OSError, EOFError, pickle.UnpicklingError)  # what comes of files that cannot be written or read


def compiled(function: Callable) -> Callable:
    """Compiled at the first call for some types, and kept on disk where there is a place for it."""
    try:
        return njit(function, cache=True, **OPTIONS)
    except RuntimeError:  # no folder to write to
        return njit(function, **OPTIONS)


def call(module: ModuleType, name: str, *arguments: object) -> object:
    """A function of the module. Where what numba compiled cannot be kept or read, all of them are compiled in memory,
    anew in each process."""
    function = getattr(module, name)
    try:
        return function(*arguments)
    except BROKEN as error:
        tell(Path(module.__file__).stem, function.stats.cache_path, error)
        for name_of, other in list(vars(module).items()):
            if hasattr(other, "py_func"):
                setattr(module, name_of, njit(other.py_func, **OPTIONS))
        return getattr(module, name)(*arguments)


def tell(files: str, folder: str, error: BaseException) -> None:
    """Warn that each process compiles."""
    warnings.warn(
        f"numba cannot use its files {files}.*.nb* in {folder}, so each process compiles some seconds: make room, "
        f"delete them, or set NUMBA_CACHE_DIR ({type(error).__name__}: {error})",
        RuntimeWarning,
        stacklevel=3,
    )
