"""The command `pointmix describe`, for a checkout: python scripts/describe.py --help"""

from __future__ import annotations

import sys

from pointmix.commands import describe


def main(argv: list[str]) -> int:
    return describe.main(argv, prog="describe.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
