"""Does the model wait for its images? One run of a training recipe, with several numbers of workers.

python benchmarks/loader.py
python benchmarks/loader.py --root DIR --workers 0 4 8 16 --batch 128 --csv benchmarks/results/mine.csv
python benchmarks/loader.py --config configs/image/fec_small_in1k.yaml --data.reprob 0

DIR holds train/CLASS/*.jpg and val/CLASS/*.jpg; without it, JPEGs of 256 to 500 pixels are written to a temporary
folder, smooth random fields of several scales, which decode like photographs of little detail. The device is the one
that training takes. Flags of scripts/train_image.py that are not named below are the recipe's.
Columns: images/s of the loader alone (decoding and augmentation), MiB that a batch sends to the device and would send
as float32, images/s of the training step alone on one batch, images/s of training, and the share of its time in which
the model has nothing to do because the next batch is not there.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import relieve, save

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "image" / "coc_tiny_in1k.yaml"


def write_images(root: Path, number: int) -> None:
    """An image folder of two classes with `number` training images."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(number + 4):
        size = tuple(rng.integers(256, 501, 2).tolist())
        scales = [Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (4, 16, 64)]
        fields = [np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) for image in scales]
        folder = root / ("train" if i < number else "val") / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((sum(fields) / 3).astype(np.uint8)).save(folder / f"{i:05}.jpg", quality=90)


def stream(splits) -> Iterator[tuple]:
    """Training batches, epoch after epoch."""
    for epoch in itertools.count():
        splits.train.set_epoch(epoch)
        yield from splits.train


def load(batches: Iterator[tuple], workers: int, seconds: float) -> tuple[float, float]:
    """Batches a second of the loader alone, without those that workers made before the clock starts, and MiB of one."""
    for _ in range(2 * workers + 1):
        next(batches)
    start, sent = time.perf_counter(), 0
    for done in itertools.count(1):
        sent += next(batches)[0].nbytes
        if (passed := time.perf_counter() - start) >= seconds:
            return done / passed, sent / done / 2**20
    raise AssertionError("unreachable")


def train(run, batches: Iterator[tuple], seconds: float) -> tuple[float, float]:
    """Batches a second of training, and the share of the time in which it waits for them."""
    from pointmix.engine.loop import train_step

    for _ in range(2):
        train_step(run, [next(batches)]).item()
    start, waited = time.perf_counter(), 0.0
    for done in itertools.count(1):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        train_step(run, [batch]).item()  # waits for the device
        if (passed := time.perf_counter() - start) >= seconds:
            return done / passed, waited / passed
    raise AssertionError("unreachable")


def measure(args: argparse.Namespace, flags: list[str]) -> list[dict]:
    import torch

    from pointmix.engine.flags import parse
    from pointmix.engine.run import build_run
    from pointmix.engine.train import build_accelerator
    from pointmix.tasks.classify_images import ClassifyImagesConfig

    given = ["--config", str(args.config), "--data.source", "folder", "--data.root", str(args.root)]
    given += ["--batch_size", str(args.batch), "--threads", str(args.threads), "--data.workers", "0"]
    given += [] if torch.accelerator.is_available() else ["--precision", "no"]  # recipes are for GPUs
    cfg = parse(given + flags, ClassifyImagesConfig)
    run = build_run(cfg, Path(), build_accelerator(cfg))
    run.wrapped.train()
    args.device = run.accelerator.device.type
    batch = next(iter(run.splits.train))
    step, _ = train(run, itertools.repeat(batch), args.seconds)
    floats = 4 * batch[0].pixels.numel() / 2**20
    rows = []
    for workers in args.workers:
        data = dataclasses.replace(cfg.data, workers=workers)
        run.splits = run.task.build_splits(dataclasses.replace(cfg, data=data), rank=0, world_size=1)
        batches = stream(run.splits)
        alone, sent = load(batches, workers, args.seconds)
        both, waits = train(run, batches, args.seconds)
        rows.append({
            "workers": workers, "load img/s": round(alone * args.batch, 1), "MiB": round(sent, 2),
            "float32 MiB": round(floats, 2), "step img/s": round(step * args.batch, 1),
            "train img/s": round(both * args.batch, 1), "waits %": round(100 * waits, 1),
        })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=RECIPE, help="the training recipe")
    parser.add_argument("--root", type=Path, help="an image folder, instead of images written for the occasion")
    parser.add_argument("--images", type=int, default=512, help="how many are written")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="a row for each number")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10, help="time for each figure")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    args, flags = parser.parse_known_args()
    relieve()

    from rich.console import Console
    from rich.table import Table

    with tempfile.TemporaryDirectory() as folder:
        if args.root is None:
            args.root = Path(folder)
            write_images(args.root, args.images)
        rows = measure(args, flags)
    table = Table(title=f"{args.config.stem}, batch {args.batch}, {args.device}")
    for key in rows[0]:
        table.add_column(key, justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=max(Console().width, 100)).print(table)
    if args.csv:
        save(args, rows, ("workers",), recipe=args.config.stem, batch=args.batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
