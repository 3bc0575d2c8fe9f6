"""The command `pointmix train detect`, for a checkout: python scripts/train_detect.py --help"""

from __future__ import annotations

import sys

from pointmix.commands.train import train


def main(argv: list[str]) -> int:
    return train("detect", argv, prog="train_detect.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
