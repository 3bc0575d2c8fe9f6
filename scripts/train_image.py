"""Train an image classifier. Without arguments: a small network on scikit-learn's handwritten digits, about a minute.

python scripts/train_image.py
python scripts/train_image.py --data.root DIR --model.name coc_tiny        # your photographs, defaults as in --help
python scripts/train_image.py --config configs/image/coc_tiny_in1k.yaml --data.root DIR
torchrun --nproc_per_node 8 scripts/train_image.py --config configs/image/coc_tiny_in1k.yaml --data.root DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from pointmix.utils.cli import exit_code

EMBEDDED = Path(__file__).resolve().parents[1] / "configs" / "image" / "coc_digits.yaml"


def train(argv: list[str]) -> None:
    from pointmix.engine.flags import parse_recipe
    from pointmix.engine.images import TrainImagesConfig
    from pointmix.engine.seeds import train_all

    cfg, recipe = parse_recipe(argv, TrainImagesConfig, prog="train_image.py", embedded=str(EMBEDDED))
    train_all(cfg, recipe=recipe)


def main(argv: list[str]) -> int:
    return exit_code(lambda: train(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
