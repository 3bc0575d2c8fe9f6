"""The metadata of a run's weights, read as untrusted text: everything is checked before it is used."""

from __future__ import annotations

import json
import math
from typing import Any

from pointmix.tasks.base import get_task
from pointmix.tasks.protocols import Info
from pointmix.utils.limits import check_limit, limit
from pointmix.utils.messages import one_line

FETCHING = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # other weights
USUAL = 8192  # no number in a network's arguments is larger, unless the weights themselves are

_KINDS = {
    "task": (lambda v: isinstance(v, str) and 0 < len(v) < 200, "the name of a task"),
    "name": (lambda v: isinstance(v, str) and 0 < len(v) < 200, "the name of a model"),
    "kwargs": (lambda v: isinstance(v, dict), "arguments by name"),
    "data": (lambda v: isinstance(v, dict), "settings by name"),
}


def read_info(metadata: dict[str, str]) -> Info:
    """The info of a run from the metadata of its weights, each value JSON.

    Raises:
        ValueError: a key is missing or holds something else than it should, or the task is not registered; one line.
    """
    check_limit("METADATA_BYTES", sum(map(len, metadata.values())), "the metadata")
    if missing := [key for key in _KINDS if key not in metadata]:
        raise ValueError(f"its metadata has no {missing[0]!r}")
    info: Info = {}
    for key, text in metadata.items():
        if key != "format":
            try:
                info[key] = json.loads(text)
            except (ValueError, RecursionError) as e:
                raise ValueError(f"{key} in its metadata is no JSON: {one_line(e, 100)}") from e
    for key, (is_valid, expected) in _KINDS.items():
        if not is_valid(info[key]):
            raise ValueError(f"{key} in its metadata is {one_line(repr(info[key]), 60)}, expected {expected}")
    get_task(info["task"]).check_info(info)
    return info


def check_kwargs(kwargs: dict[str, Any], *, values: int) -> None:
    """Refuse arguments that ask for a network much larger than its weights.

    Args:
        values: numbers in all the weights.

    Raises:
        ValueError: one line with the argument.
    """
    for key, value in _numbers("kwargs", kwargs):
        if not math.isfinite(value) or abs(value) > max(USUAL, values):
            raise ValueError(f"{key} in its metadata is {one_line(repr(value), 30)}; its weights have {values} values")
    sides = kwargs.get("img_size", 1)
    for side in sides if isinstance(sides, list) else [sides]:
        is_whole = isinstance(side, int) and not isinstance(side, bool)
        if not is_whole or side < 1 or side**2 > limit("IMAGE_PIXELS"):
            raise ValueError(f"img_size in its metadata is {one_line(repr(side), 30)}, expected the side of an image")


def _numbers(key: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [number for k, v in value.items() for number in _numbers(f"{key}.{k}", v)]
    if isinstance(value, list):
        return [number for v in value for number in _numbers(key, v)]
    return [(key, value)] if isinstance(value, int | float) and not isinstance(value, bool) else []
