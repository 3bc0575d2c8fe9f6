"""Train a network to find the objects in images: a box, a class and a mask for each. Without arguments: handwritten
digits scattered over a canvas, a few minutes.

python scripts/train_detect.py
python scripts/train_detect.py --data.root DIR --model.name coc_tiny --model.init RUN     # your images
python scripts/train_detect.py --config configs/detect/coco_small.yaml --data.root DIR    # COCO on one GPU
torchrun --nproc_per_node 4 scripts/train_detect.py --config configs/detect/coc_1x.yaml --data.root DIR --model.init RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

from pointmix.engine.command import train_command

EMBEDDED = Path(__file__).resolve().parents[1] / "configs" / "detect" / "digit_objects.yaml"


def main(argv: list[str]) -> int:
    return train_command(argv, task="detect", prog="train_detect.py", embedded=str(EMBEDDED))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
