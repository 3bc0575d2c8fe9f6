"""Train a classifier of point clouds. Without arguments: a small network on embedded shapes, about two minutes.

python scripts/train_points.py
python scripts/train_points.py --seeds 1 2 3                                   # mean and deviation of three runs
python scripts/train_points.py --data.source scanobjectnn --data.root DIR      # your scans, defaults as in --help
python scripts/train_points.py --config configs/points/pointmlp_coc_scanobjectnn.yaml --data.root DIR --votes 10
torchrun --nproc_per_node 2 scripts/train_points.py --config configs/points/pointmlp_coc_modern.yaml --data.root DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from pointmix.engine.command import train_command

EMBEDDED = Path(__file__).resolve().parents[1] / "configs" / "points" / "coc_shapes.yaml"


def main(argv: list[str]) -> int:
    return train_command(argv, task="classify_points", prog="train_points.py", embedded=str(EMBEDDED))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
