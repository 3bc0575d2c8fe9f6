"""Train an image classifier. Without arguments: a small network on scikit-learn's handwritten digits, about a minute.

python scripts/train_image.py
python scripts/train_image.py --data.root DIR --model.name coc_tiny        # your photographs, defaults as in --help
python scripts/train_image.py --config configs/image/coc_tiny_in1k.yaml --data.root DIR
torchrun --nproc_per_node 8 scripts/train_image.py --config configs/image/coc_tiny_in1k.yaml --data.root DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from pointmix.engine.command import train_command

EMBEDDED = Path(__file__).resolve().parents[1] / "configs" / "image" / "coc_digits.yaml"


def main(argv: list[str]) -> int:
    return train_command(argv, task="classify_images", prog="train_image.py", embedded=str(EMBEDDED))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
