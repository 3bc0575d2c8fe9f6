"""How fast is clustering alone, and how near to the rate at which memory can be copied? One run, contenders in turns.

python benchmarks/clustering.py
python benchmarks/clustering.py --device cuda --dtype bfloat16 --batch 128 --csv benchmarks/results/mine.csv

Rows: windows as coc_small and hcformer_small have them, by each way there is to cluster them: "kernel", one in Triton
(on a GPU only); "products", batched products, what is taken when none is asked for; "direct", the equations written
down as batched products, one operation after the other; "bare", the three products alone (similarity, aggregate,
dispatch) with nothing between, which clusters nothing; "reference", the equations over a tensor of M x L x D.
Columns, for the values alone and for values and gradients: milliseconds, times as fast as products, as reference,
and GB/s as a share of what copying a large tensor reaches in the same run. Bytes are those that any way has to move:
queries, values and what comes back, for gradients all of these again with theirs. Where caches hold less than that, the
share cannot pass 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import copy_task, in_turns, relieve, save, show

# windows of an image, their points and centers, heads of 32 channels, rule
SHAPES = {
    "hard, stage 1": (64, 49, 4, 4, "hard"),
    "hard, stage 3": (4, 49, 4, 8, "hard"),
    "soft, stage 1": (49, 64, 16, 4, "soft"),
    "soft, stage 3": (1, 196, 49, 8, "soft"),
    "distance, stage 1": (49, 64, 16, 4, "distance"),
}
DIM = 32


def contenders(name: str, args: argparse.Namespace) -> tuple[dict[str, list[Callable[[], None]]], list[int]]:
    """Of each way the values alone, and values and gradients; and the bytes that either has to move."""
    import torch

    from pointmix.ops import clustering, use_backend
    from pointmix.ops.similarity import negative_distance

    torch.manual_seed(0)
    windows, points, centers, heads, rule = SHAPES[name]
    like = {"device": args.device, "dtype": getattr(torch, args.dtype)}
    # queries and values are halves of one map's outcome
    qv = torch.randn(windows * args.batch, points, 2, heads, DIM, **like)
    ccv = torch.randn(windows * args.batch, centers, 2, heads, DIM, **like)
    given = [*qv.unbind(2), *ccv.unbind(2), torch.ones(1, **like)]
    if rule == "hard":
        given.append(torch.zeros(1, **like))  # beta
    elif rule == "soft":
        given.append(torch.randn(windows, centers, heads, points, **like))  # the bias of a set
    given = [t.requires_grad_() for t in given]
    reference = clustering.cluster_hard_reference if rule == "hard" else clustering.cluster_soft_reference
    fast = clustering.cluster_hard if rule == "hard" else clustering.cluster_soft
    if rule == "distance":
        reference, fast = (partial(op, similarity=partial(negative_distance, kappa=1.0)) for op in (reference, fast))
    do = torch.randn_like(given[0])

    def values(op, backend: str | None) -> None:
        with use_backend(backend), torch.no_grad():
            op(*given)

    def gradients(op, backend: str | None) -> None:
        with use_backend(backend):
            torch.autograd.grad(op(*given), given, do, allow_unused=True)  # bare reads only some

    products = None if args.device == "cpu" else "torch"  # a CPU has compiled passes between them
    ways = {"kernel": (fast, "triton"), "products": (fast, products), "reference": (reference, "torch")}
    ways |= {"direct": (partial(direct, rule=rule), "torch"), "bare": (bare, "torch")}
    if args.device == "cpu":
        del ways["kernel"]
    tasks = {way: [partial(step, *of) for step in (values, gradients)] for way, of in ways.items()}
    inner = given[0].numel() * given[0].element_size()
    outer = given[2].numel() * given[2].element_size()
    return tasks, [3 * inner + 2 * outer, (3 + 5) * inner + (2 + 4) * outer]


def direct(q, v, c, cv, alpha, more=None, *, rule: str):
    """Clustering as one would write it down with batched products; `more` is beta, or the bias of a set if any."""
    import torch
    import torch.nn.functional as F

    from pointmix.ops.similarity import negative_distance

    q, v, c, cv = (t.transpose(1, 2) for t in (q, v, c, cv))  # heads before points
    if rule == "distance":
        near = alpha * negative_distance(c, q, kappa=1.0)  # (R, E, M, L)
    else:
        near = alpha * (F.normalize(c, dim=-1) @ F.normalize(q, dim=-1).mT)
    if rule == "hard":
        best, center = torch.sigmoid(near + more).max(2, keepdim=True)
        a = torch.zeros_like(near).scatter(2, center, best)
    else:
        if more is not None:
            near = (near.unflatten(0, (-1, len(more))) + more.transpose(1, 2)).flatten(0, 1)  # windows of a set
        a = near.softmax(2).to(v.dtype)
    g = (cv + a @ v) / (1 + a.sum(-1, keepdim=True))
    return (a.mT @ g).transpose(1, 2)


def bare(q, v, c, cv, *_):
    """Similarity, aggregate and dispatch without any weights."""
    q, v, c, cv = (t.transpose(1, 2) for t in (q, v, c, cv))
    near = c @ q.mT
    return (near.mT @ (cv + near @ v)).transpose(1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--seconds", type=float, default=2, help="time for each row and column")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    args = parser.parse_args()
    relieve()

    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda, but torch sees no GPU", file=sys.stderr)
        return 2
    torch.set_num_threads(args.threads)
    copy, size = copy_task(args.device)
    peak = size / in_turns([copy], args.seconds, args.device)[0]
    rows: list[dict[str, object]] = []
    for name in args.shapes:
        tasks, moved = contenders(name, args)
        turns = (in_turns([task[i] for task in tasks.values()], args.seconds, args.device) for i in (0, 1))
        taken = [dict(zip(tasks, times, strict=True)) for times in turns]
        for way in tasks:
            row: dict[str, object] = {"clustering": name, "by": way}
            for what, times, size in zip(("", "grad "), taken, moved, strict=True):
                row |= {
                    f"{what}ms": f"{times[way] * 1e3:.4g}",
                    f"{what}x products": f"{times['products'] / times[way]:.2f}",
                    f"{what}x reference": f"{times['reference'] / times[way]:.2f}",
                    f"{what}of copy": f"{size / times[way] / peak:.2f}",
                }
            rows.append(row)
    title = f"batch {args.batch}, {args.dtype}, {args.device}, copy {peak / 1e9:.4g} GB/s"
    show(title, rows, left=("clustering", "by"))
    if args.csv:
        rows = [row | {"copy GB/s": f"{peak / 1e9:.4g}"} for row in rows]
        save(args, rows, ("clustering", "by"), batch=args.batch, dtype=args.dtype)
    return 0


if __name__ == "__main__":
    sys.exit(main())
