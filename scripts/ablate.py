"""The command `pointmix ablate`, for a checkout: python scripts/ablate.py --help"""

from __future__ import annotations

import sys

from pointmix.commands import ablate


def main(argv: list[str]) -> int:
    return ablate.main(argv, prog="ablate.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
