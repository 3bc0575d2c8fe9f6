"""What depends on nothing but sizes, built once: position planes, offsets and plans of whole lattices."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pointmix.utils.tracing import has_memory, traced

T = TypeVar("T")
ENTRIES, BYTES = 256, 2**27  # at most, of all devices together; the longest unused go first

_entries: OrderedDict[Hashable, tuple[Any, list[tuple[Tensor, int]], int]] = OrderedDict()  # value, versions, bytes
_notes = WeakTensorKeyDictionary()


def shared(build: Callable[..., T], *args: Hashable, like: Tensor) -> T:
    """`build(*args, device)` for the device of `like`; the same tensors for the same arguments.

    They serve inference and training, whichever asked first, and every thread. Nobody may write to them; where torch
    tells that somebody did, or asked for gradients of them, they are built anew. So they are each time while a graph
    is traced or captured, within transforms of torch.func, and for tensors that are more than plain ones, because what
    is built then belongs to those; and on devices other than CPUs and CUDA's. `clear` frees the memory.
    """
    device = like.device
    if traced(like) or device.type not in ("cpu", "cuda"):
        return build(*args, device)
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None  # others would have to wait
    key = (build, args, device, stream, torch.get_default_dtype())  # the last decides what a quotient of integers is
    with _lock:
        value, versions, _ = _entries.get(key, (None, [], 0))
        if versions and all(t._version == version and not t.requires_grad for t, version in versions):
            _entries.move_to_end(key)
            return value
    with torch.inference_mode(False), torch.no_grad(), _without_autocast(device.type):
        value = build(*args, device)
    versions = [(t, t._version) for t in _tensors(value)]
    if not all(type(t) is Tensor and has_memory(t) for t, _ in versions):
        return value
    size = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t, _ in versions}.values())
    if versions and size <= BYTES:
        with _lock:
            _entries.pop(key, None)
            _entries[key] = value, versions, size
            while len(_entries) > ENTRIES or held() > BYTES:
                _entries.popitem(last=False)
    return value


def held() -> int:
    """Bytes of all that is kept."""
    return sum(size for _, _, size in _entries.values())


def clear() -> None:
    """Forget everything that was built."""
    with _lock:
        _entries.clear()


def note(x: Tensor, fact: object) -> None:
    """Remember what is known of a tensor, for as long as it lives and, as far as torch tells, nobody writes to it."""
    if not (traced(x) or x.is_inference()):  # nobody can tell whether an inference tensor was written to
        _notes[x] = x._version, fact


def noted(x: Tensor) -> object:
    """What was noted, or None."""
    if torch.compiler.is_compiling() or x.requires_grad or x.is_inference():
        return None
    version, fact = _notes.get(x, (None, None))
    return fact if version == x._version else None


def _without_autocast(device: str) -> torch.autocast:
    """No autocast, so that the first to ask does not decide for all."""
    return torch.autocast(device if torch.amp.is_autocast_available(device) else "cpu", enabled=False)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _new_lock() -> None:
    global _lock
    _lock = Lock()


_new_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)  # another thread may hold it while this one forks
