"""The command `pointmix train --task NAME`, for a checkout: python scripts/train.py --help"""

from __future__ import annotations

import sys

from pointmix.engine.command import train_command


def main(argv: list[str]) -> int:
    return train_command(argv, prog="train.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
