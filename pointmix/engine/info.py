"""What stands beside the weights of a run, read as the text of a stranger: nothing in it is believed before a look."""

from __future__ import annotations

import json
import math
from typing import Any

from pointmix.utils.limits import check_limit, limit
from pointmix.utils.messages import one_line

NEEDED = ("name", "kwargs", "classes", "in_chans")
FETCHING = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # other weights
USUAL = 8192  # no number in a network's arguments is larger, unless the weights themselves are


def read_info(metadata: dict[str, str]) -> dict[str, Any]:
    """The info of a run from the metadata of its weights, each value JSON.

    Raises:
        ValueError: naming the first key that is missing, or holds something else than it should.
    """
    check_limit("METADATA_BYTES", sum(map(len, metadata.values())), "the metadata")
    missing = [key for key in NEEDED if key not in metadata]
    if missing:
        raise ValueError(f"its metadata has no {missing[0]!r}")
    info = {}
    for key, text in metadata.items():
        if key != "format":
            try:
                info[key] = json.loads(text)
            except (ValueError, RecursionError) as e:
                raise ValueError(f"{key} in its metadata is no JSON: {one_line(e, 100)}") from e
    for key, (holds, expected) in _KINDS.items():
        if key in info and not holds(info[key]):
            raise ValueError(f"{key} in its metadata is {one_line(repr(info[key]), 60)}, expected {expected}")
    for key in ("mean", "std"):
        if key in info and len(info[key]) not in (1, info["in_chans"]):
            raise ValueError(f"{key} in its metadata has {len(info[key])} values for {info['in_chans']} channels")
    return info


def check_kwargs(kwargs: dict[str, Any], *, values: int) -> None:
    """Refuse arguments that ask for a network much larger than its weights.

    Args:
        values: numbers in all the weights.
    Raises:
        ValueError: naming the argument.
    """
    for key, value in _numbers("kwargs", kwargs):
        if not math.isfinite(value) or abs(value) > max(USUAL, values):
            raise ValueError(f"{key} in its metadata is {one_line(repr(value), 30)}; its weights have {values} values")
    sides = kwargs.get("img_size", 1)
    for side in sides if isinstance(sides, list) else [sides]:
        if not _is_whole(side) or side < 1 or side**2 > limit("IMAGE_PIXELS"):
            raise ValueError(f"img_size in its metadata is {one_line(repr(side), 30)}, expected the side of an image")


def _numbers(key: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in _numbers(f"{key}.{k}", v)]
    if isinstance(value, list):
        return [found for v in value for found in _numbers(key, v)]
    return [(key, value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(kind: type | tuple[type, ...], value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, kind) for v in value)


def _are_finite(value: Any, low: float) -> bool:
    return _is_list_of((int, float), value) and all(math.isfinite(v) and v > low for v in value)


_KINDS = {
    "name": (lambda v: isinstance(v, str) and 0 < len(v) < 200, "the name of a model"),
    "kwargs": (lambda v: isinstance(v, dict), "arguments by name"),
    "classes": (lambda v: _is_list_of(str, v), "a list of names"),
    "in_chans": (lambda v: _is_whole(v) and 0 <= v <= USUAL, f"a number of channels up to {USUAL}"),
    "img_size": (lambda v: _is_whole(v) and 1 <= v <= USUAL, f"a number of pixels up to {USUAL}"),
    "mean": (lambda v: _are_finite(v, -math.inf), "a list of finite numbers"),
    "std": (lambda v: _are_finite(v, 0), "a list of positive numbers"),
    "data": (lambda v: isinstance(v, dict), "settings by name"),
}  # fmt: skip
