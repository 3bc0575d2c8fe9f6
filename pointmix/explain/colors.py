"""Colors for the regions of a label map, such that touching regions and regions of one window differ."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

# Twelve clearly different colors; `palette` adds lighter and paler shades of each.
_BASE = "e6194b 3cb44b 4363d8 ffe119 f58231 911eb4 42d4f4 f032e6 bfef45 469990 9a6324 dcbeff".split()


def palette() -> Float[np.ndarray, "36 3"]:
    """36 colors in [0, 1], the twelve most different ones first."""
    base = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in _BASE]) / 255
    return np.concatenate([base, 0.5 + 0.5 * base, 0.6 * base])


def touching(labels: Int[np.ndarray, "H W"]) -> set[tuple[int, int]]:
    """Pairs (a < b) of adjacent labels; negative labels are absent."""
    pairs: set[tuple[int, int]] = set()
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        edge = (a != b) & (a >= 0) & (b >= 0)
        both = np.sort(np.stack([a[edge], b[edge]], axis=1), axis=1)  # (edges, 2)
        pairs.update(map(tuple, np.unique(both, axis=0).tolist()))
    return pairs


def color_regions(labels: Int[np.ndarray, "H W"], groups: Int[np.ndarray, "H W"]) -> dict[int, Float[np.ndarray, "3"]]:
    """A color for each label of a map.

    Args:
        labels: (H, W) int, region of each cell, negative where absent.
        groups: (H, W) int, such as windows; each label lies in one group.

    Returns:
        label -> (3,) color. Labels that touch or share a group get different colors as far as the palette allows.
    """
    colors = palette()
    present, first = np.unique(labels, return_index=True)
    members: dict[int, list[int]] = {}
    for label, at in zip(present.tolist(), first.tolist(), strict=True):
        if label >= 0:
            members.setdefault(int(groups.flat[at]), []).append(label)
    neighbors: dict[int, set[int]] = {label: set() for label in present.tolist() if label >= 0}
    for a, b in touching(labels):
        neighbors[a].add(b)
        neighbors[b].add(a)
    mates = {label: set(group) for group in members.values() for label in group}

    chosen: dict[int, int] = {}
    used = np.zeros(len(colors), dtype=int)
    for label, near in neighbors.items():
        taken = {chosen[n] for n in near if n in chosen}
        taken_in_group = taken | {chosen[n] for n in mates[label] if n in chosen}
        # the least used free color, the strong ones first; if a window has more regions than there are colors, only
        # touching regions must differ
        options = [c for c in range(len(colors)) if c not in taken_in_group] or [
            c for c in range(len(colors)) if c not in taken
        ]
        options = options or list(range(len(colors)))
        chosen[label] = min(options, key=lambda c: (c // len(_BASE), used[c], c))
        used[chosen[label]] += 1
    return {label: colors[c] for label, c in chosen.items()}
