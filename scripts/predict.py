"""The command `pointmix predict`, for a checkout: python scripts/predict.py --help"""

from __future__ import annotations

import sys

from pointmix.commands import predict


def main(argv: list[str]) -> int:
    return predict.main(argv, prog="predict.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
