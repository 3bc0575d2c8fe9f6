"""The command `pointmix train segment`, for a checkout: python scripts/train_segment.py --help"""

from __future__ import annotations

import sys

from pointmix.commands.train import train


def main(argv: list[str]) -> int:
    return train("segment", argv, prog="train_segment.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
