"""Functions that numba compiles at their first call and caches on disk where it can write.

They copy arrays in loops: for `a[:] = b` numba compiles also the message of a mismatch, which takes seconds.
"""

from __future__ import annotations

import inspect
import os
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from inspect import unwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numba import cfunc, njit, types
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher
from torch import Tensor

SIGNATURE = types.void(types.CPointer(types.voidptr))  # of callbacks
UNUSABLE_CACHE = (OSError, EOFError, pickle.UnpicklingError)  # raised for files that cannot be written or read


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: compile at the first call with some types; cached on disk if there is a writable folder."""
    try:
        return _jit(function, cache=True)
    except RuntimeError:  # no writable folder
        return _jit(function, cache=False)


def _jit(function: Callable[..., Any], *, cache: bool) -> Callable[..., Any]:
    function = unwrap(function)  # without the run-time shape checks of the tests
    return njit(function, cache=cache, nogil=True, error_model="numpy")


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for a part of a callback; its sums are added in the order in which they are written.

    A function that is not inlined is compiled twice, by itself and as part of its caller: the process that compiles
    would run the former, and processes that read the cache the latter.
    """
    return _inline(function, {"contract", "nsz"})


def inlined_sums(function: Callable[..., Any]) -> Callable[..., Any]:
    """`inlined` with sums in any order, as in products; NaN stays.

    A loop that sums must write nothing: LLVM compiles a loop that writes twice, with vectors and without, and where the
    arrays happen to lie decides which one runs; their sums differ.
    """
    return _inline(function, {"reassoc", "contract", "nsz", "arcp"})


def _inline(function: Callable[..., Any], fastmath: set[str]) -> Callable[..., Any]:
    return njit(unwrap(function), error_model="numpy", fastmath=fastmath, forceinline=True)


def compiled_callback(function: Callable[..., None], file: str) -> CFunc:
    """A function of a pointer to addresses as one that C can call, compiled at once; cached on disk where numba can
    write.

    A quotient by zero is infinite or NaN. As an exception, which C cannot pass on, it would end the function early.

    Args:
        function: may use variables of an enclosing function, but no compiled functions among them: numba identifies
            these by a number of their process, so no other process would find its file on disk.
        file: where the function is written.

    Raises:
        TypeError: if it uses a compiled function of an enclosing function.
    """
    variables = inspect.getclosurevars(function).nonlocals
    if found := [name for name, value in variables.items() if isinstance(value, Dispatcher)]:
        raise TypeError(
            f"{function.__qualname__} uses the compiled function {found[0]} of an enclosing function, expected one "
            "of the module: it could not be cached on disk"
        )
    compile_ = partial(cfunc, SIGNATURE, error_model="numpy")
    try:
        return compile_(cache=True)(function)
    except RuntimeError:  # no writable folder
        return compile_()(function)
    except UNUSABLE_CACHE as error:
        folder = os.environ.get("NUMBA_CACHE_DIR") or str(Path(file).parent / "__pycache__")
        warn_no_cache(Path(file).stem, folder, error)
        return compile_()(function)


def call(module: ModuleType, name: str, *arguments: object) -> Any:
    """Call a compiled function of a module. If the cache on disk cannot be used, all functions of the module are
    compiled in memory instead, in each process anew."""
    function = getattr(module, name)
    try:
        return function(*arguments)
    except UNUSABLE_CACHE as error:
        warn_no_cache(Path(str(module.__file__)).stem, function.stats.cache_path, error)
        for name_of, other in list(vars(module).items()):
            if hasattr(other, "py_func"):
                setattr(module, name_of, _jit(other.py_func, cache=False))
        return getattr(module, name)(*arguments)


def warn_no_cache(files: str, folder: str, error: BaseException) -> None:
    """Warn that every process compiles."""
    warnings.warn(
        f"numba cannot use its files {files}.*.nb* in {folder}, so each process compiles for some seconds: make room, "
        f"delete them, or set NUMBA_CACHE_DIR ({type(error).__name__}: {error})",
        RuntimeWarning,
        stacklevel=3,
    )


def as_array(x: Tensor) -> np.ndarray:
    """The tensor as a contiguous array, without a copy if possible."""
    return x.contiguous().resolve_neg().numpy()
