"""Making other libraries agree on farthest points: on where to start, and on points that coincide."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from pointmix.ops.ragged import set_of, spans


def start_first(ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"], total: int) -> Int[Tensor, "N"]:
    """An order of the points that puts the start of each set first and keeps the rest as it was."""
    owner = set_of(ptr, total)
    place, start = torch.arange(total, device=ptr.device) - ptr[:-1][owner], start[owner]
    earlier = torch.where(place == 0, start, torch.where(place <= start, place - 1, place))
    return earlier + ptr[:-1][owner]


def distinct(index: Int[Tensor, "K"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"]) -> Int[Tensor, "K"]:
    """Picks without repetitions: where these begin, all that is left coincides with picks, and follows by index."""
    if len(index.unique()) == len(index):
        return index
    index = index.clone()
    for begin, end, first, last in spans(ptr, out_ptr):
        seen: set[int] = set()
        for place, pick in enumerate(index[first:last].tolist()):
            if pick in seen:
                rest = [i for i in range(begin, end) if i not in seen][: last - first - place]
                index[first + place : last] = torch.tensor(rest, device=index.device)
                break
            seen.add(pick)
    return index
