"""The command `pointmix train image`, for a checkout: python scripts/train_image.py --help"""

from __future__ import annotations

import sys

from pointmix.commands.train import train


def main(argv: list[str]) -> int:
    return train("image", argv, prog="train_image.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
