"""What all benchmarks do: start with a calm allocator, and write their table down with how it was made."""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import sys
from pathlib import Path

# On many machines a large allocation costs more than what is done with it; every contender gets the same relief.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "100000000"}


def relieve() -> None:
    """Start this program anew unless it has these settings, which the allocator reads at the start of a process."""
    if "POINTMIX_BENCH" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR | {"POINTMIX_BENCH": "1"})


def save(args: argparse.Namespace, rows: list[dict], **setting: object) -> None:
    """Write rows to `args.csv`, each with the settings, device, versions, date and command of this run."""
    import torch

    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    setting |= {"device": where, "torch": torch.__version__, "python": platform.python_version()}
    script = Path(sys.argv[0]).name
    setting |= {"date": datetime.date.today().isoformat()}
    setting |= {"command": " ".join([f"python benchmarks/{script}", *sys.argv[1:]])}
    keys = dict.fromkeys(key for row in rows for key in row)
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    with args.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*keys, *setting])
        writer.writeheader()
        writer.writerows(row | setting for row in rows)
    print(f"written to {args.csv}")
