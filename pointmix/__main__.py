"""`python -m pointmix` is the command `pointmix`."""

import sys

from pointmix.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
