"""Train an image classifier. Without arguments: a small network on scikit-learn's handwritten digits, about a minute.

python scripts/train_image.py
python scripts/train_image.py --config configs/image/coc_tiny_in1k.yaml --data.root DIR
torchrun --nproc_per_node 8 scripts/train_image.py --config configs/image/coc_tiny_in1k.yaml --data.root DIR
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "configs" / "image" / "coc_digits.yaml"


def main(argv: list[str]) -> int:
    try:
        import pointmix  # noqa: F401  first: it makes torchvision loadable
        from pointmix.engine.config import parse
        from pointmix.engine.train import train

        train(parse(argv, default_config=str(DEFAULT)))
    except KeyboardInterrupt as e:  # or the engine's Stopped, which names the signal
        print(str(e) or "interrupted", file=sys.stderr)
        return 128 + getattr(e, "signum", signal.SIGINT)
    except (ValueError, OSError, ImportError, FloatingPointError) as e:
        print("error: " + " ".join(str(e).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
