"""Random content of a page, and what the page is to say of its points."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from pointmix.explain.page.document import write_page

HOSTILE = "cat</script><script>alert(1)</script><img src=x onerror=alert(2)>.jpg"
NOTES = ["Shown is every 2nd row and column: 76 of 5,000 points.", "Of each block the first 4 heads are shown."]
HEIGHT, WIDTH, STAGE = 8, 12, 24  # STAGE: points of the first stage


class Content:
    """Random content of a kind, and its arrays as NumPy has them."""

    def __init__(self, kind: str, epochs: int, absent: int = 0) -> None:
        self.rng = np.random.default_rng(0)
        self.arrays: list[np.ndarray] = []
        self.kind = kind
        self.count = HEIGHT * WIDTH - absent if kind == "lattice" else 300
        place: dict[str, Any] = {"height": HEIGHT, "width": WIDTH, "step": 2}
        if kind == "lattice":
            self.pixel = np.sort(self.rng.permutation(HEIGHT * WIDTH)[: self.count]).astype(np.uint32)
            place["pixel"] = self.add(self.pixel)
        else:
            self.position = self.integers(65_536, (self.count, 3), np.uint16)
            place = {"position": self.add(self.position), "low": [-1.0, 0.0, 2.0], "scale": 1e-4}
            place["light"] = self.add(self.integers(256, (self.count,)))
        self.points = {
            "count": self.count,
            "given": 5000,
            "color": self.add(self.integers(256, (self.count, 3))),
            **place,
        }
        self.epochs = [self.epoch(i) for i in range(epochs)]

    def add(self, array: np.ndarray) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1

    def integers(self, below: int, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
        return self.rng.integers(0, below, shape).astype(dtype)

    def epoch(self, i: int) -> dict[str, Any]:
        colors = self.add(np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8))
        near = self.add(self.integers(STAGE, (self.count,), np.uint16))
        names = ("cat", "dog") if i else ("dog", "cat")
        guess = [{"name": name, "probability": p} for name, p in zip(names, (0.5 + 0.2 * i, 0.1), strict=True)]
        return {
            "label": f"epoch {10 * (i + 1)}",
            "guess": guess,
            "blocks": [
                self.block("stage 1, block 1", 2),
                self.block("stage 1, block 2", 3),
                self.block("stage 2", 2, True),
            ],
            "reduced": {
                "name": "k-means into 3",
                "label": self.add(self.integers(3, (STAGE,))),
                "nearest": near,
                "color": colors,
            },
            "maps": [
                {
                    "name": name,
                    "value": self.add(self.integers(256, size)),
                    "nearest": nearest,
                    "low": -1.0,
                    "high": 3.0,
                }
                for name, size, nearest in [
                    ("class activation: cat", (STAGE,), near),
                    ("attention", (self.count,), None),
                ]
            ],
        }

    def block(self, name: str, heads: int, trivial: bool = False) -> dict[str, Any]:
        """Clusters of random points, 4 windows of 3 centers; or every point its own."""
        window = np.arange(STAGE) % 4
        center = 3 * window[:, None] + self.rng.integers(0, 3, (STAGE, heads))
        centers = STAGE if trivial else 12
        sides = [HEIGHT, WIDTH] if self.kind == "lattice" else [65_535] * 3
        place = (self.rng.random((centers, len(sides))) * sides).astype(
            np.float32 if self.kind == "lattice" else np.uint16
        )
        own = np.repeat(np.arange(STAGE)[:, None], heads, axis=1)
        return {
            "name": name, "stage": 0, "block": 0, "kind": "hard", "trivial": trivial,
            "points": STAGE if self.kind == "lattice" else 5000, "windows": 4, "centers": centers // 4,
            "nearest": self.add(self.integers(STAGE, (self.count,), np.uint16)),
            "window": self.add(window.astype(np.uint16)),
            "center": self.add((own if trivial else center).astype(np.uint16)),
            "weight": self.add(self.integers(256, (STAGE, heads))),
            "center_position": self.add(place),
            "color": self.add(self.integers(256, (heads, centers, 3))),
        }  # fmt: skip

    def write(self, path: Path) -> str:
        """Write the page; its address."""
        names = {"uint8": "u8", "uint16": "u16", "uint32": "u32", "float32": "f32"}
        arrays = [
            {"dtype": names[a.dtype.name], "shape": list(a.shape), "data": base64.b64encode(a.tobytes()).decode()}
            for a in self.arrays
        ]
        title = {
            "version": 1,
            "title": HOSTILE,
            "subtitle": "coc_tiny",
            "truth": "cat",
            "kind": self.kind,
            "notes": NOTES,
        }
        write_page(path, {**title, "points": self.points, "arrays": arrays, "epochs": self.epochs})
        return path.as_uri()

    def expected(self, point: int, block: int, head: int) -> dict[str, str]:
        """What the page says of a point, in the last epoch."""
        of = self.epochs[-1]["blocks"][block]
        near = int(self.arrays[of["nearest"]][point])
        centers = self.arrays[of["center"]][:, head]
        return {
            "point": str(point),
            "cluster": str(centers[near]),
            "members": str((centers == centers[near]).sum()),
            "window": str(self.arrays[of["window"]][near]),
            "weight": f"{self.arrays[of['weight']][near, head] / 255:.3f}",
        }
