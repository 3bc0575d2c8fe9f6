"""What benchmarks share: a calm allocator, times of contenders in turns, peaks of the machine, and a table on screen
and in a file that says how it was made."""

from __future__ import annotations

import argparse
import csv
import datetime
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from machine import described, table_name

# On many machines a large allocation costs more than what is done with it; every contender gets the same relief.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "100000000"}
# Every array is mapped by itself and given back when it is freed. By default holes between arrays that are still in use
# count, and the peak of the same step differs by a fifth between processes.
MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_MMAP_MAX_": str(2**20)}
QUIET = {"KINETO_LOG_LEVEL": "99"}  # torch's profiler tells of every start
RESULTS = Path(__file__).parent / "results"


def relieve() -> None:
    """Start this program anew unless it has these settings, which are read at the start of a process."""
    if "POINTMIX_BENCH" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR | QUIET | {"POINTMIX_BENCH": "1"})


def started(parser: argparse.ArgumentParser, table: str, *, seconds: float = 3) -> argparse.Namespace:
    """Arguments of a comparison of networks that writes `table`, with their defaults; refuses before anything runs."""
    parser.add_argument("--batch", type=int, help="the full batch; by default 16, on a GPU 128")
    parser.add_argument("--seconds", type=float, default=seconds, help="time for each row and column")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--csv", type=Path, help=f"by default results/{table}_MACHINE.csv, as {table}_cpu_avx2.csv")
    args = parser.parse_args()
    relieve()

    import torch

    if args.batch is None:
        args.batch = 128 if args.device == "cuda" else 16
    args.csv = args.csv or RESULTS / table_name(table, args.device)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "error: --device cuda, but torch sees no GPU\n")
    if min(args.batch, args.threads) < 1:
        parser.exit(2, f"error: --batch and --threads must be at least 1, got {args.batch} and {args.threads}\n")
    if not args.csv.parent.is_dir():
        parser.exit(2, f"error: --csv {args.csv}: there is no folder {args.csv.parent}\n")
    if args.csv.is_dir():
        parser.exit(2, f"error: --csv {args.csv} is a folder, expected a file\n")
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, in convolutions as in products
    return args


def finish(device: str) -> None:
    """Wait until the device has done all it was asked to."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def in_turns(tasks: list[Callable[[], object]], seconds: float, device: str = "cpu") -> list[float]:
    """Median seconds of a call of each task, in turns of one call or 20 ms until each has had its share of the time.

    Each turn has an order of its own: otherwise what the machine does at intervals could always meet the same task.
    """

    def turn(task: Callable[[], object], calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            task()
        finish(device)
        return (time.perf_counter() - begin) / calls

    for task in tasks:
        turn(task, 1)  # compiles
    start = time.perf_counter()
    times = [[turn(task, 1)] for task in tasks]
    calls = [max(1, int(0.02 / t)) for (t,) in times]
    times = [taken if n == 1 else [] for taken, n in zip(times, calls, strict=True)]
    order, shuffle = list(range(len(tasks))), random.Random(0).shuffle
    while time.perf_counter() - start < seconds * len(tasks) or min(map(len, times)) < 3:
        shuffle(order)
        for i in order:
            times[i].append(turn(tasks[i], calls[i]))
    return [statistics.median(t) for t in times]


def resident(what: str) -> float:
    """Resident MiB of this process on Linux: VmHWM at its peak (getrusage would count the parent's); now, RssAnon that
    it allocated and RssFile of pages of files, which the system may drop at any time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


def peak(task: Callable[[], object], device: str) -> float:
    """MiB at the peak of a task's second call: of this process without pages of files, or on a GPU of torch."""
    task()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        task()
        return torch.cuda.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    task()
    return resident("VmHWM") - resident("RssFile")


def added(task: Callable[[], object], device: str) -> float:
    """MiB that a task adds at its peak to what was there before, such as a model and its input."""
    import torch

    if device == "cuda":
        task()
        return -torch.cuda.memory_allocated() / 2**20 + peak(task, device)
    gc.collect()  # counting operations leaves tensors in reference cycles
    return -resident("RssAnon") + peak(task, device)  # before any call: a process keeps what it frees


def apart(*command: str) -> float:
    """The number that a benchmark prints, in a process of its own whose peak is what is in use at once."""
    env = {k: v for k, v in os.environ.items() if k not in ALLOCATOR} | MAPPED | {"POINTMIX_BENCH": "1"}
    done = subprocess.run([sys.executable, *command], env=env, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def partly(images, share: float = 1 / 4, *, block: bool = False, patch: int = 4):
    """Images of which a random share of the patches of `patch` pixels a side is visible, or a square with a quarter of
    each, as points."""
    import torch

    import pointmix

    side = images.shape[-1] // patch
    masks = torch.zeros(len(images), side, side, dtype=torch.bool)
    for mask in masks:
        if block:
            top, left = torch.randint(side - side // 2 + 1, (2,)).tolist()
            mask[top : top + side // 2, left : left + side // 2] = True
        else:
            mask.view(-1)[torch.randperm(side**2)[: int(side**2 * share)]] = True
    return pointmix.PointSet.from_images(list(images), masks.repeat_interleave(patch, 1).repeat_interleave(patch, 2))


def copy_task(device: str) -> tuple[Callable[[], object], int]:
    """A copy that no cache holds, and the bytes that it reads and writes."""
    import torch

    x = torch.ones(2**28 if device == "cuda" else 2**26, device=device)  # 1 GiB, or a quarter
    return partial(torch.empty_like(x).copy_, x), 2 * x.numel() * 4


def product_task(device: str, dtype: str) -> tuple[Callable[[], object], int]:
    """A large matrix product, the most that a network can hope for, and its operations."""
    import torch

    side = 8192 if device == "cuda" else 2048
    a, b, y = torch.randn(3, side, side, device=device).to(getattr(torch, dtype))
    return partial(torch.mm, a, b, out=y), 2 * side**3


def show(title: str, rows: list[dict], *, left: tuple[str, ...], sections: str | None = None) -> None:
    """Print rows; those columns to the left, a line where `sections` changes, which is no column."""
    from rich.console import Console
    from rich.table import Table

    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != sections]
    table = Table(title=title)
    for key in keys:
        table.add_column(key, justify="left" if key in left else "right")
    for row, after in zip(rows, [*rows[1:], {}], strict=True):
        table.add_row(*(str(row.get(key, "")) for key in keys), end_section=row.get(sections) != after.get(sections))
    Console(width=max(Console().width, 160)).print(table)


def save(
    args: argparse.Namespace, rows: list[dict], names: tuple[str, ...], *, quiet: bool = False, **setting: object
) -> None:
    """Write rows to `args.csv`, each with the settings, device, versions, date and command of this run.

    They replace the lines of the file with the same settings and `names` (columns that say what a row is about); other
    lines stay as they are.
    """
    import torch

    columns = (*names, *setting)

    def about(line: dict) -> tuple[str, ...]:
        return tuple(str(line[key]) for key in columns)

    lines: list[dict] = []
    if args.csv.is_file():
        with args.csv.open(newline="") as file:
            lines = list(csv.DictReader(file))
    command = " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    made = {"device": described(args.device, args.threads), "torch": torch.__version__}
    made |= {"python": platform.python_version(), "date": datetime.date.today().isoformat(), "command": command}
    places = {about(line): i for i, line in enumerate(lines) if line.keys() >= set(columns)}
    for row in rows:
        place = places.setdefault(about(row | setting), len(lines))
        lines[place : place + 1] = [row | setting | made]  # one more at the end
    keys = dict.fromkeys(key for line in lines for key in line if key not in made)
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    beside = args.csv.with_name(f"{args.csv.name}.{os.getpid()}")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*keys, *made])
        writer.writeheader()
        writer.writerows(lines)
    os.replace(beside, args.csv)
    if not quiet:
        print(f"written to {args.csv}")
