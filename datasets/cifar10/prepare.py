"""Write CIFAR-10 as an image folder: ROOT/train/CLASS/NNNNN.png and ROOT/test/CLASS/NNNNN.png.

    python datasets/cifar10/prepare.py --root data/cifar10

downloads 163 MiB; with --archive cifar-10-python.tar.gz nothing is downloaded. Both ways the archive is checked against
its published MD5 sum before anything in it is opened.
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

COUNTS = {"train": 5000, "test": 1000}  # of each of the ten classes


def write_split(root: Path, split: str, classes: list[str], samples: Iterable[tuple[Image.Image, int]]) -> None:
    """Write one split beside its final place, count it, and only then put it there.

    Raises:
        ValueError: when a class does not have the number of images that it should.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{split}-") as beside:
        for name in classes:
            (Path(beside) / split / name).mkdir(parents=True)
        counts: Counter[str] = Counter()
        for number, (image, target) in enumerate(samples):
            image.save(Path(beside) / split / classes[target] / f"{number:05}.png")
            counts[classes[target]] += 1
        wrong = {name: counts[name] for name in classes if counts[name] != COUNTS[split]}
        if wrong:
            raise ValueError(f"{split} should have {COUNTS[split]} images of every class, but has {wrong}")
        os.replace(Path(beside) / split, root / split)


def prepare(root: Path, archive: Path | None) -> None:
    """Fetch or take the archive and write both splits.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: in one line.
    """
    import pointmix.utils.torchvision_ops  # noqa: F401, I001  (first: it lets torchvision import beside any torch)
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_md5, download_url

    for split in COUNTS:
        if (root / split).exists():
            raise FileExistsError(f"{root / split} is there already; remove it to write it anew")
    with tempfile.TemporaryDirectory() as scratch:
        if archive is None:
            archive = Path(scratch, CIFAR10.filename)
            download_url(CIFAR10.url, scratch, CIFAR10.filename)
        if not archive.is_file():
            raise FileNotFoundError(f"no file {archive}; expected {CIFAR10.filename} from {CIFAR10.url}")
        if not check_md5(archive, CIFAR10.tgz_md5):
            raise ValueError(f"{archive} is not {CIFAR10.filename}: its MD5 sum should be {CIFAR10.tgz_md5}")
        if not hasattr(tarfile, "data_filter"):
            raise RuntimeError("this Python unpacks archives without a check; expected 3.10.12, 3.11.4 or newer")
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")  # nothing outside of the folder, no links to there, no devices
        except tarfile.TarError as error:
            raise ValueError(f"cannot unpack {archive}: {error}") from error
        for split in COUNTS:
            dataset = CIFAR10(scratch, train=split == "train")  # which checks the sum of each file before it reads it
            write_split(root, split, dataset.classes, (dataset[i] for i in range(len(dataset))))
            print(f"{root / split}: {len(dataset)} images of {len(dataset.classes)} classes")


def main() -> None:
    """Command line; errors of the user's are one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Write CIFAR-10 as an image folder.")
    parser.add_argument("--root", type=Path, default=Path("data/cifar10"), help="where to write (default: %(default)s)")
    parser.add_argument("--archive", type=Path, help="a cifar-10-python.tar.gz that you have (default: download it)")
    args = parser.parse_args()
    try:
        prepare(args.root, args.archive)
    except (OSError, ValueError, RuntimeError) as error:  # torchvision's failed downloads are RuntimeError or OSError
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
