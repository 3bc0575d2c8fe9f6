"""The command `pointmix evaluate`, for a checkout: python scripts/evaluate.py --help"""

from __future__ import annotations

import sys

from pointmix.commands import evaluate


def main(argv: list[str]) -> int:
    return evaluate.main(argv, prog="evaluate.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
