"""Maps of class scores as rows from top to bottom, so that a large one is never held as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.pointset import PointSet
from pointmix.tasks.segment.inference.base import PART, Category, logits_in_parts

Rows = Iterator[Float[Tensor, "n W K"]]  # consecutive rows


def whole(model: nn.Module, image: PointSet, width: int, category: Category) -> Rows:
    """Logits of one image, a `Grid` with rows of `width` pixels."""
    rest = None  # the beginning of a row
    for _, logits in logits_in_parts(model, image, category):
        flat = logits if rest is None else torch.cat([rest, logits])
        rows = len(flat) // width
        if rows:
            yield flat[: rows * width].view(rows, width, -1)
        rest = flat[rows * width :]


def sliding(
    model: nn.Module,
    image: Float[Tensor, "1 C H W"],
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    coord_mode: str,
    category: Category,
) -> Rows:
    """Mean logits of overlapping windows. The last ones are moved inside, see `window_starts`."""
    height, width = image.shape[2:]
    tall, wide = min(window[0], height), min(window[1], width)
    tops, lefts = window_starts(height, tall, stride[0]), window_starts(width, wide, stride[1])
    counts = image.new_zeros(width, dtype=torch.float32)  # windows over each column
    for left in lefts:
        counts[left : left + wide] += 1
    total: Tensor | None = None  # (tall, W, K), of the rows from the current top on
    seen = image.new_zeros(tall, dtype=torch.float32)  # windows over each of these rows
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            crop = image[:, :, top : top + tall, left : left + wide]
            row = 0
            for logits in whole(model, PointSet.from_batch(crop, coord_mode=coord_mode), wide, category):
                if total is None:
                    total = logits.new_zeros(tall, width, logits.shape[-1])
                total[row : row + len(logits), left : left + wide] += logits
                row += len(logits)
        assert total is not None
        seen += 1
        done = below - top  # rows that no window further down covers
        for rows in torch.arange(done, device=image.device).split(max(1, PART // width)):
            yield total[rows] / (seen[rows, None, None] * counts[:, None])
        for kept in (total, seen):
            kept[: tall - done] = kept[done:].clone()
            kept[tall - done :] = 0


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """First pixel of each window along a side; the last window ends with the side (mmseg's sliding inference)."""
    number = -(-max(side - window, 0) // stride) + 1
    return [min(i * stride, side - window) for i in range(number)]


def resized(rows: Rows, old: tuple[int, int], new: tuple[int, int], *, block: int) -> Rows:
    """A map of size `old` (H, W) in size `new`, `block` rows at a time: `interpolate` with mode bilinear and
    align_corners=False. Of the same size, the values are the same."""
    low, high, weight = _taps(old[0], new[0])
    high = low if old[0] == new[0] else high
    left, right, across = _taps(old[1], new[1])
    held, first = next(rows), 0  # rows of the old map, and the index of the first
    weight, left, right, across = (t.to(held.device) for t in (weight, left, right, across))
    for start in range(0, new[0], block):
        stop = min(start + block, new[0])
        top, bottom = int(low[start]), int(high[stop - 1]) + 1
        while first + len(held) < bottom:
            done = min(max(top - first, 0), len(held))
            held, first = torch.cat([held[done:], next(rows)]), first + done
        held, first = held[top - first :], top
        part = held[: bottom - top]
        if old[0] != new[0]:
            above, under = (held[(taps[start:stop] - first).to(held.device)] for taps in (low, high))
            part = above.lerp(under, weight[start:stop, None, None].to(held.dtype))
        if old[1] != new[1]:
            part = part[:, left].lerp(part[:, right], across[:, None].to(held.dtype))
        yield part


def _taps(old: int, new: int) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Float[Tensor, "n"]]:
    """The two old pixels around each new one, and the weight of the second."""
    at = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp(min=0)
    low = at.floor().long()
    return low, (low + 1).clamp(max=old - 1), at - low
