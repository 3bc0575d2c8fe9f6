"""The command `pointmix explain`, for a checkout: python scripts/explain.py --help"""

from __future__ import annotations

import sys

from pointmix.commands import explain


def main(argv: list[str]) -> int:
    return explain.main(argv, prog="explain.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
