"""How fast are exported networks on a CPU? One run, contenders in turns.

python benchmarks/export.py
python benchmarks/export.py --models coc_tiny hcformer_tiny --no-compile --csv benchmarks/results/mine.csv

Rows: a network in batches of one and of --batch images. "eager" is the network itself, "exported" the program of
torch.export run by PyTorch, "AOTInductor" the same program compiled ahead of time, and "ONNX" onnxruntime; all take
any number of images.
Columns: images/s, the ratio to eager, and the largest difference of the outputs from eager's.

To write coc_tiny takes about 9 s of one core as a program, then 25 s as ONNX and 105 s with AOTInductor, for images of
any size; hcformer_tiny takes as long. It is the time of torch's tracers, more than half of it for sizes that depend on
the number of images. --no-compile leaves out AOTInductor.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial

from common import in_turns, save, show, started

MODELS = ("coc_tiny",)


def contenders(args: Namespace, name: str, folder: str) -> dict[str, Callable]:
    """A network in each form; each takes images and returns logits."""
    import onnxruntime
    import torch

    import pointmix
    from pointmix.engine.export import export_program, save_onnx

    torch.manual_seed(0)
    model = pointmix.create_model(name).eval()
    example = torch.randn(2, 3, args.size, args.size)
    program = export_program(model, example)
    forms: dict[str, Callable] = {"eager": model, "exported": program.module()}
    if not args.no_compile:
        package = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/{name}.pt2")
        forms["AOTInductor"] = torch._inductor.aoti_load_package(package)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    data = save_onnx(program, {})
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    forms["ONNX"] = lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    return forms


def rows_of(args: Namespace, name: str, folder: str) -> list[dict[str, object]]:
    """One row for each form and batch."""
    import torch

    forms, rows = contenders(args, name, folder), []
    for batch in sorted({1, args.batch}):
        x = torch.randn(batch, 3, args.size, args.size)
        outputs = [form(x) for form in forms.values()]
        seconds = in_turns([partial(form, x) for form in forms.values()], args.seconds)
        for form, took, out in zip(forms, seconds, outputs, strict=True):
            rows.append({
                "model": name, "batch": batch, "form": form, "images/s": round(batch / took, 1),
                "x eager": round(seconds[0] / took, 2), "difference": f"{float((out - outputs[0]).abs().max()):.1g}",
            })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--size", type=int, default=224, help="image side in pixels")
    parser.add_argument("--no-compile", action="store_true", help="leave out what takes minutes to compile")
    args = started(parser, "export")

    import torch

    if args.device != "cpu":
        parser.exit(2, "error: exported networks are compared on the CPU only\n")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        rows = [row for name in args.models for row in rows_of(args, name, folder)]
    show(f"exported networks, {args.size} pixels", rows, left=("model", "form"))
    save(args, rows, ("model", "batch", "form"), size=args.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
