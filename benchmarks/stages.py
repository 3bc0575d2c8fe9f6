"""Where does the time of a network go, and how far is each part from its floors? One run, all parts in turns.

python benchmarks/stages.py                              # about two minutes on two cores
python benchmarks/stages.py --model coc_small --kinds training --csv benchmarks/results/mine.csv
python benchmarks/stages.py --variant "(quarter)"        # a random quarter of the patches of each image visible

Rows: the parts of each stage, each timed alone on the input that it has in the network; in training forward and
backward, with gradients of its input and weights. "plan" builds windows, centers and sets; "order" and "back" move
features into the order of windows and out of it. Of the blocks of a stage the first is timed, and counted as often as
there are blocks: "norm1" in training also adds the gradients of both branches, "add, norm2" is the residual and the
second norm, "mlp" has its residual. "sum" adds up the parts; "network" is a step of the whole in the same turns.
Columns:
calls        in a step
ms           of all calls
of network   share of the step of the network
of full      of a partial image, the share of the same part's time on full images
GMAC         multiply-adds of the batch in the forward pass, in 1e9
by GMAC      least ms for them at the rate of a large matrix product: two operations for each, in training as many again
             for the gradient of the weights and of the input
MiB          moved at least: inputs, weights and outputs once, in training once more with their gradients
by MiB       least ms for them at the rate of a large copy; what a cache holds can be faster
x floor      ms over the larger of both, of "sum" and "network" over the sum of these
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace

from common import copy_task, in_turns, product_task, save, show, started
from image_models import build
from shares import KINDS, OURS, PRECISIONS, contender

VARIANTS = ("(quarter)", "(quarter block)", "(quarter occupied)", "(tenth)", "(tenth occupied)")
COLUMNS = ("ms", "GMAC", "by GMAC", "MiB", "by MiB", "floor")


def measure(args: Namespace, kind: str) -> list[dict[str, object]]:
    """The rows of inference or training."""
    import torch
    from parts import parts

    names = [args.model, f"{args.model} {args.variant}"] if args.variant else [args.model]
    networks = [contender(args, name, args.precision, args.size)[KINDS.index(kind)] for name in names]
    product, operations = product_task(args.device, PRECISIONS[args.precision])
    copy, copied = copy_task(args.device)
    bf16 = args.precision == "bf16"
    cast = torch.autocast(args.device, torch.bfloat16, enabled=bf16, cache_enabled=False)  # weights in every call
    with torch.inference_mode(kind == "inference"), cast:
        built = [build(name, args) for name in names]
        found = [parts(model.train(kind == "training"), x) for model, x in built]
        tasks = [product, copy, *networks, *(part.task for some in found for part in some)]
        top, copying, *taken = in_turns(tasks, args.seconds, args.device)
    steps, taken = taken[: len(names)], taken[len(names) :]
    full = table(found[0], taken, steps[0], operations / top, copied / copying)
    shown = table(found[-1], taken[-len(found[-1]) :], steps[-1], operations / top, copied / copying)
    rows = []
    for (stage, part, calls), numbers in shown.items():
        row = {"model": names[-1], "precision": args.precision, "kind": kind, "stage": stage, "part": part}
        ms, floor = numbers["ms"], numbers["floor"]
        row |= {"calls": calls, "ms": f"{ms:.4g}", "of network": f"{ms / 1e3 / steps[-1]:.3f}"}
        if args.variant:
            whole = full.get((stage, part, calls))
            row["of full"] = f"{ms / whole['ms']:.2f}" if whole else ""
        row |= {column: f"{numbers[column]:.4g}" for column in COLUMNS[1:-1]}
        rows.append(row | {"x floor": f"{ms / floor:.2f}" if floor else ""})
    return rows


def table(
    parts: list, seconds: list[float], network: float, operations: float, moved: float
) -> dict[tuple[str, str, int], dict[str, float]]:
    """The numbers of each part, of their sum, and of the network, for the seconds of a call and of a step of the
    network, and the operations and bytes of a second."""
    found = {}
    for part, taken in zip(parts, seconds[: len(parts)], strict=True):
        by_operations, by_bytes = part.operations / operations, part.moved / moved
        floor = max(by_operations, by_bytes)
        one = taken * 1e3, part.macs / 1e9, by_operations * 1e3, part.moved / 2**20, by_bytes * 1e3, floor * 1e3
        found[part.stage, part.name, part.calls] = {c: n * part.calls for c, n in zip(COLUMNS, one, strict=True)}
    total = {column: sum(numbers[column] for numbers in found.values()) for column in COLUMNS}
    return found | {("", "sum", 1): total, ("", "network", 1): total | {"ms": network * 1e3}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="coc_tiny", choices=OURS)
    parser.add_argument("--variant", choices=VARIANTS, help="only a part of each image is visible, see image_models.py")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    args = started(parser, "stages", seconds=1)
    for kind in args.kinds:
        rows = measure(args, kind)
        save(args, rows, ("model", "precision", "kind", "stage", "part"), quiet=True, batch=args.batch, size=args.size)
        about = {"model", "precision", "kind"}
        lines = [{k: v for k, v in row.items() if k not in about} | {"section": row["stage"]} for row in rows]
        title = f"{rows[0]['model']}, {kind}, {args.precision}, batch {args.batch}, {args.device}"
        show(title, lines, left=("stage", "part"), sections="section")
    print(f"written to {args.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
