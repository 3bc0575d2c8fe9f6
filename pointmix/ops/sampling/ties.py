"""Makes the farthest points of other libraries agree with the reference form, which they do not in two respects.

They start at the first point of a set or at a random one, and repeat points once all that remain coincide with picks.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from pointmix.ops.ragged import ptr_to_batch, set_bounds


def start_first(ptr: Int[Tensor, "B1"], start: Int[Tensor, "B"], total: int) -> Int[Tensor, "N"]:
    """An order of the points with the start of each set first and the others as they were."""
    batch = ptr_to_batch(ptr, total)
    place, start = torch.arange(total, device=ptr.device) - ptr[:-1][batch], start[batch]
    source = torch.where(place == 0, start, torch.where(place <= start, place - 1, place))
    return source + ptr[:-1][batch]


def without_repeats(index: Int[Tensor, "K"], ptr: Int[Tensor, "B1"], out_ptr: Int[Tensor, "B1"]) -> Int[Tensor, "K"]:
    """From the first repeated pick of a set on, replace the picks by the remaining points, by index."""
    if len(index.unique()) == len(index):
        return index
    index = index.clone()
    for begin, end, first, last in set_bounds(ptr, out_ptr):
        seen: set[int] = set()
        for place, pick in enumerate(index[first:last].tolist()):
            if pick in seen:
                rest = [i for i in range(begin, end) if i not in seen][: last - first - place]
                index[first + place : last] = torch.tensor(rest, device=index.device)
                break
            seen.add(pick)
    return index
