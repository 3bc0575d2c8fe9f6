"""Train a network for any task, also for one of yours that a module registers.

python scripts/train.py --task classify_images --data.root DIR --model.name coc_tiny
python scripts/train.py --import my_package.my_task --task my_task --config my_recipe.yaml
python scripts/train.py --import my_package.my_task --task my_task --help
"""

from __future__ import annotations

import sys

from pointmix.engine.command import train_command


def main(argv: list[str]) -> int:
    return train_command(argv, prog="train.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
