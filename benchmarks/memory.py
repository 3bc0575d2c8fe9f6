"""How much memory does an image take? Each model of images, on each layout, in inference and in training.

python benchmarks/memory.py
python benchmarks/memory.py --models coc_tiny hcformer_tiny --batch 16 --csv benchmarks/results/mine.csv

Rows: a model on "grid", whole images; "sparse", the same with every cell listed; "quarter", a random quarter of the
4x4 patches of each image visible; "cloud", the pixels as free points (anchors at random: farthest points take long, and
no memory to speak of; HCFormer's tables of positions, which clouds cannot read, are then networks of offsets).
Columns: MiB of one more image, the peak of a step with --batch images less that with half of them, over the images
between, in inference, in training, and in training with gradient checkpointing; the latter two also as a ratio to the
model's first row, and checkpointing to none. Then the MiB that a whole step adds to the model and its input, with
libraries' buffers and parameters' gradients. Every number comes from a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from common import apart, finish, partly, peak, resident, save, show

LAYOUTS = ("grid", "sparse", "quarter", "cloud")
KINDS = ("infer", "train", "checkpointed")


def step(name: str, layout: str, kind: str, batch: int, args: argparse.Namespace) -> Callable[[], None]:
    """A step of a kind, on so many images in a layout."""
    import torch

    import pointmix

    torch.manual_seed(0)
    settings = {"layout": "cloud", "sampling": "random"} if layout == "cloud" else {}
    if layout == "cloud" and name.startswith("hcformer"):
        settings["rel_pos"] = "offset"
    model = pointmix.create_model(name, **settings).to(args.device).train(kind != "infer")
    model.set_grad_checkpointing(kind == "checkpointed")
    x = torch.randn(batch, 3, args.size, args.size)
    if layout == "sparse":
        x = pointmix.PointSet.from_images(x).as_sparse()
    elif layout == "quarter":
        x = partly(x)
    x = x.to(args.device)

    def run() -> None:
        with torch.inference_mode(kind == "infer"), torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            out = model(x)
            loss = out.float().square().mean()
        if kind != "infer":
            loss.backward()
            model.zero_grad()
        finish(args.device)

    return run


def measured(name: str, layout: str, kind: str, args: argparse.Namespace) -> tuple[float, float]:
    """MiB of one more image, and MiB that a whole step adds."""
    import torch

    half, whole = (step(name, layout, kind, batch, args) for batch in (args.batch // 2, args.batch))
    gc.collect()
    before = torch.cuda.memory_allocated() / 2**20 if args.device == "cuda" else resident("RssAnon")
    low, high = peak(half, args.device), peak(whole, args.device)
    return (high - low) / (args.batch - args.batch // 2), high - before


def main() -> int:
    import pointmix

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="names; without, all that take images")
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--batch", type=int, default=8, help="images of a step, at least 2")
    parser.add_argument("--size", type=int, default=224, help="image side in pixels, a multiple of 4")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch < 2 or args.size < 4 or args.size % 4:
        parser.error(f"expected at least 2 images of a side that 4 divides, got {args.batch} of {args.size}")

    import timm
    import torch

    known = [name for name in pointmix.list_models() if timm.get_pretrained_cfg(name).input_size]
    if unknown := set(args.models or []) - set(known):
        parser.error(f"no model of images is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(measured(*args.memory_of, args)))
        return 0

    rows = []
    for name in args.models or known:
        for layout in args.layouts:
            more, whole = zip(*(apart(*sys.argv, "--memory-of", name, layout, kind) for kind in KINDS), strict=True)
            first = more if layout == args.layouts[0] else first
            row = {"model": name, "layout": layout}
            row |= {f"{kind} MiB/image": round(m, 2) for kind, m in zip(KINDS, more, strict=True)}
            row |= {f"{kind} x": round(m / f, 2) for kind, m, f in zip(KINDS[1:], more[1:], first[1:], strict=True)}
            row |= {"of train": round(more[2] / more[1], 2)}
            row |= {f"{kind} step MiB": round(m) for kind, m in zip(KINDS, whole, strict=True)}
            rows.append(row)
    title = f"{args.batch} images of {args.size} pixels, {'bf16' if args.bf16 else 'float32'}, {args.device}"
    show(title, rows, left=("model", "layout"))
    if args.csv:
        save(args, rows, ("model", "layout"), batch=args.batch, size=args.size, bf16=args.bf16)
    return 0


if __name__ == "__main__":
    sys.exit(main())
