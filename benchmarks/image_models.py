"""How fast are our image models, and how much memory do they take? One run, contenders in turns.

python benchmarks/image_models.py
python benchmarks/image_models.py --models coc_tiny deit_tiny_patch16_224 --batch 16 --csv benchmarks/results/mine.csv

Rows: our models; "(reference)", the same model on the reference forms of its ops, which form the tensor of M x L x D
and keep the MLPs' hidden layers; "(literal)", the same weights in the papers' form, maps in place of points;
"(quarter)", a random quarter of the 4x4 patches of each image visible; "(quarter occupied)", the same for a model
that keeps every cell with a point (keep_cells="occupied"); "(quarter block)", a square with a quarter of each image
visible; "(tenth)" and "(tenth occupied)", a random tenth of the pixels; and timm models of like size; "(channels
last)", a timm model in the layout that convolutions are often faster in; "(triton)", on a GPU the fused kernels.
Columns: multiply-adds of one image (linear, convolution and matrix products), images/s of inference and of a training
step, each also as a ratio to the row's baseline (reference over reference, a part over full, else the first row), and
the peak memory that a training step adds (on the CPU in a process of its own).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import added, apart, finish, in_turns, partly, relieve, save, show

DEFAULT = (
    "coc_tiny", "coc_tiny (reference)", "coc_tiny (literal)", "coc_tiny (quarter)", "coc_tiny (quarter block)",
    "coc_tiny (quarter occupied)", "coc_tiny (tenth)", "coc_tiny (tenth occupied)", "coc_small",
    "coc_small (reference)", "coc_small (literal)", "fec_small", "fec_small (reference)", "hcformer_tiny",
    "hcformer_tiny (reference)",
    "hcformer_tiny (literal)", "hcformer_tiny (quarter)", "deit_tiny_patch16_224", "poolformer_s12", "resnet50",
)  # fmt: skip


def build(name: str, args: argparse.Namespace, share: float = 0.25, **kwargs):
    """The contender, a model with these arguments, and its input, of which a partial one keeps a share."""
    import torch
    from image_literal import LiteralBackbone

    import pointmix

    torch.manual_seed(0)
    base, _, variant = name.partition(" ")
    kwargs |= {"reference": True} if variant == "(reference)" else {}
    kwargs |= {"keep_cells": "occupied"} if variant.endswith("occupied)") else {}
    model = pointmix.create_model(base, **kwargs).to(args.device)
    model = LiteralBackbone(model) if variant == "(literal)" else model
    x = torch.randn(args.batch, 3, args.size, args.size)
    if variant.startswith("(quarter"):
        x = partly(x, share, block=variant == "(quarter block)")
    if variant.startswith("(tenth"):
        x = partly(x, 0.1, patch=1)
    if variant == "(channels last)":
        model, x = (t.to(memory_format=torch.channels_last) for t in (model, x))
    return model, x.to(args.device)


def steps(
    name: str, args: argparse.Namespace, **kwargs: object
) -> tuple[Callable[[], None], Callable[[], None], float]:
    """An inference step, a training step, and the multiply-adds of one image, of what `build` makes."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from pointmix.ops import use_backend

    model, x = build(name, args, **kwargs)
    fused = partial(use_backend, "triton" if name.endswith(" (triton)") else None)

    def infer() -> None:
        if model.training:  # setting it anew takes as long as a few operations
            model.eval()
        with fused(), torch.inference_mode(), torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            model(x)
        finish(args.device)

    def train() -> None:
        model.train()
        with fused(), torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            loss = model(x).float().square().mean()
        loss.backward()
        model.zero_grad()
        finish(args.device)

    # fused attention on a CPU is unknown to the counter
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    macs = counter.get_total_flops() / 2 / args.batch
    if args.compile:
        from pointmix.engine.compile import compile_network

        compile_network(model)
    return infer, train, macs


def memory_of(name: str, argv: list[str]) -> float:
    """MiB that training steps add to the model and its input, in a process of its own."""
    return apart(__file__, *argv, "--memory-of", name)


def reference(name: str, names: list[str]) -> str:
    """What a row is compared with."""
    base, _, variant = name.partition(" ")
    reference = f"{base} (reference)"
    if variant.startswith(("(quarter", "(tenth")) and base in names:
        return base
    return reference if not variant and reference in names else names[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(DEFAULT), help="rows, as 'NAME', 'NAME (reference)', ...")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--seconds", type=float, default=10, help="time for each row and column")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compile every contender, ours block by block")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    relieve()

    import torch

    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(added(steps(args.memory_of, args)[1], args.device)))
        return 0
    names = args.models
    contenders = [steps(name, args) for name in names]
    infer = in_turns([c[0] for c in contenders], args.seconds, args.device)
    train = in_turns([c[1] for c in contenders], args.seconds, args.device)
    peaks = [memory_of(name, sys.argv[1:]) for name in names]

    rows = []
    for i, name in enumerate(names):
        other = names.index(reference(name, names))
        rows.append({
            "model": name, "GMAC": round(contenders[i][2] / 1e9, 3),
            "infer img/s": round(args.batch / infer[i], 1), "train img/s": round(args.batch / train[i], 1),
            "train MiB": round(peaks[i]), "compared with": names[other],
            "infer x": round(infer[other] / infer[i], 2), "train x": round(train[other] / train[i], 2),
            "memory x": round(peaks[i] / max(peaks[other], 1), 2),
        })  # fmt: skip
    title = f"batch {args.batch}, {args.size} pixels, {'bf16' if args.bf16 else 'float32'}, {args.device}"
    show(title, rows, left=("model", "compared with"))
    if args.csv:
        setting = {"batch": args.batch, "size": args.size, "bf16": args.bf16, "compiled": args.compile}
        save(args, rows, ("model", "compared with"), **setting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
