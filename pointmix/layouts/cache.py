"""A cache of tensors that depend on sizes only: positions, ptr and plans of full grids. Also tags on tensors."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass
from threading import Lock
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pointmix.utils.tracing import has_memory, traced

T = TypeVar("T")
ENTRIES, BYTES = 256, 2**27  # limits over all devices; the least recently used entries are dropped first

_entries: OrderedDict[Hashable, tuple[object, list[tuple[Tensor, int]], int]] = OrderedDict()  # value, versions, bytes
_tags = WeakTensorKeyDictionary()


def cached(  # type: ignore[explicit-any]  # no type says that the device follows any arguments
    build: Callable[..., T], *args: Hashable, like: Tensor
) -> T:
    """`build(*args, device)` for the device of `like`; the same tensors for the same arguments.

    The tensors are shared by inference and training and by all threads: treat them as read-only. They are rebuilt if
    their version counter shows a write or if they require gradients. Nothing is cached while a graph is traced or
    captured, within torch.func transforms, for tensor subclasses (the result would belong to the trace), or on devices
    other than CPU and CUDA. `clear` frees the memory.
    """
    device = like.device
    if traced(like) or device.type not in ("cpu", "cuda"):
        return build(*args, device)
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None  # a stream must not use another's
    key = (build, args, device, stream, torch.get_default_dtype())  # the dtype of a quotient of integers
    with _lock:
        value, versions, _ = _entries.get(key, (None, [], 0))
        if versions and all(t._version == version and not t.requires_grad for t, version in versions):
            _entries.move_to_end(key)
            return cast(T, value)
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
            while len(_entries) > ENTRIES or cached_bytes() > BYTES:
                _entries.popitem(last=False)
    return value


def cached_bytes() -> int:
    """Size of all entries in bytes."""
    return sum(size for _, _, size in _entries.values())


def clear() -> None:
    """Drop all entries."""
    with _lock:
        _entries.clear()


def set_tag(x: Tensor, tag: object) -> None:
    """Attach a tag to a tensor. It is lost when the tensor is written to in place."""
    if not (traced(x) or x.is_inference()):  # inference tensors do not track writes
        _tags[x] = x._version, tag


def get_tag(x: Tensor) -> object:
    """The tag of a tensor, or None."""
    if torch.compiler.is_compiling() or x.requires_grad or x.is_inference():
        return None
    version, tag = _tags.get(x, (None, None))
    return tag if version == x._version else None


def _without_autocast(device: str) -> torch.autocast:
    """Autocast off, so that entries do not depend on who asked first."""
    return torch.autocast(device if torch.amp.is_autocast_available(device) else "cpu", enabled=False)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


_lock = Lock()


def _new_lock() -> None:
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)  # another thread may hold it at the fork
