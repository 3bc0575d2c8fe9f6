"""Train a network to label every pixel of images or every point of clouds. Without arguments: handwritten digits
scattered over a canvas, about two minutes.

python scripts/train_segment.py
python scripts/train_segment.py --config configs/segment/scenes3d.yaml
python scripts/train_segment.py --data.root DIR --data.classes='[road, sky]' --model.name coc_tiny   # images and masks
python scripts/train_segment.py --config configs/segment/ade20k_coc.yaml --data.root DIR --model.init CLASSIFICATION_RUN
torchrun --nproc_per_node 4 scripts/train_segment.py --config configs/segment/ade20k_coc.yaml --data.root DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from pointmix.engine.command import train_command

EMBEDDED = Path(__file__).resolve().parents[1] / "configs" / "segment" / "digit_scenes.yaml"


def main(argv: list[str]) -> int:
    return train_command(argv, task="segment", prog="train_segment.py", embedded=str(EMBEDDED))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
