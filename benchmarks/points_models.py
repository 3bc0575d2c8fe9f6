"""How fast are our models of point clouds, and how much memory do they take? One run, contenders in turns.

python benchmarks/points_models.py
python benchmarks/points_models.py --models pointmlp_coc "pointmlp_coc (reference)" --points 2048 --csv mine.csv

Rows: our models; "(reference)", the same model on the reference forms of its ops: groups written out before they are
mapped, batch normalization a step of its own, and a value and a projection for each neighbor; "(literal)", the same
weights in the form of the papers, convolutions over (groups, channels, neighbors), see pointmlp_literal.py.
Columns: multiply-adds of one cloud (linear maps and matrix products), clouds/s of inference and of a training step,
each also as a ratio to the reference and to the literal form, and the peak memory that a step adds (on the CPU in a
process of its own).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from common import added, apart, finish, in_turns, relieve, save, show

FORMS = ("", " (reference)", " (literal)")
DEFAULT = [name + form for name in ("pointmlp_elite", "pointmlp", "pointmlp_coc") for form in FORMS]


def steps(name: str, args: argparse.Namespace) -> tuple[Callable[[], None], Callable[[], None], float]:
    """An inference step, a training step, and the multiply-adds of one cloud."""
    import torch
    from pointmlp_literal import LiteralPointMLP
    from torch.utils.flop_counter import FlopCounterMode, mm_flop

    import pointmix

    torch.manual_seed(0)
    base, _, variant = name.partition(" ")
    model = pointmix.create_model(base, reference=variant == "(reference)").to(args.device)
    model = LiteralPointMLP(model) if variant == "(literal)" else model
    x = (2 * torch.rand(args.batch, args.points, 3) - 1).to(args.device)

    def infer() -> None:
        model.eval()
        with torch.inference_mode(), torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            model(x)
        finish(args.device)

    def train() -> None:
        model.train()
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            loss = model(x).float().square().mean()
        loss.backward()
        model.zero_grad()
        finish(args.device)

    in_place = {torch.ops.aten.addmm_: lambda total, a, b, **kwargs: mm_flop(a, b)}  # which the counter leaves out
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        model.eval()(x[:1])
    return infer, train, counter.get_total_flops() / 2


def memory_of(name: str, kind: str, argv: list[str]) -> float:
    """MiB that a step adds to the model and its input, in a process of its own."""
    return apart(__file__, *argv, "--memory-of", name, kind)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=DEFAULT, help="rows: 'NAME', 'NAME (reference)', '(literal)'")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--points", type=int, default=1024, help="of each cloud")
    parser.add_argument("--seconds", type=float, default=10, help="time for each row and column")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    relieve()

    import torch

    torch.set_num_threads(args.threads)
    if args.memory_of:
        name, kind = args.memory_of
        print(json.dumps(added(steps(name, args)[kind == "train"], args.device)))
        return 0
    names = args.models
    contenders = [steps(name, args) for name in names]
    times, peak = {}, {}  # of the kinds, by name
    for i, kind in enumerate(("infer", "train")):
        tasks = [contender[i] for contender in contenders]
        times[kind] = dict(zip(names, in_turns(tasks, args.seconds, args.device), strict=True))
        peak[kind] = {name: memory_of(name, kind, sys.argv[1:]) for name in names}

    rows = []
    for i, name in enumerate(names):
        row = {"model": name, "GMAC": round(contenders[i][2] / 1e9, 3)}
        base, _, form = name.partition(" ")
        for kind in times:
            row[f"{kind} clouds/s"] = round(args.batch / times[kind][name], 2)
            row[f"{kind} MiB"] = round(peak[kind][name])
            for other in ("reference", "literal"):
                against = f"{base} ({other})"
                if not form and against in names:
                    row[f"{kind} x {other}"] = round(times[kind][against] / times[kind][name], 2)
                    row[f"{kind} memory / {other}"] = round(peak[kind][name] / max(peak[kind][against], 1), 2)
        rows.append(row)
    title = f"{args.batch} x {args.points} points, {'bf16' if args.bf16 else 'float32'}, {args.device}"
    show(title, rows, left=("model",))
    if args.csv:
        save(args, rows, ("model",), batch=args.batch, points=args.points, bf16=args.bf16)
    return 0


if __name__ == "__main__":
    sys.exit(main())
