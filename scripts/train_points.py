"""The command `pointmix train points`, for a checkout: python scripts/train_points.py --help"""

from __future__ import annotations

import sys

from pointmix.commands.train import train


def main(argv: list[str]) -> int:
    return train("points", argv, prog="train_points.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
