"""How many images a second do our networks and timm's of like size take, and how near to the machine's peak?

python benchmarks/timm_models.py --no-compile
python benchmarks/timm_models.py --models coc_small poolformer_s12 --csv benchmarks/results/mine.csv

Rows: a network, eager or compiled, in float32 or bf16 (autocast), alone or in a batch. Contenders of one form and batch
run in turns. A training step is timed eager in the full batch only; compiled networks in the full batch only.
Columns: multiply-adds of one image (linear, convolution and matrix products), images/s of inference and of a training
step, GFLOP/s of inference, twice those multiply-adds, and their share of a large matrix product's in the same turns.
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Callable

from common import in_turns, product_task, save, show, started
from image_models import steps

FORMS = ("float32 eager", "float32 compiled", "bf16 eager", "bf16 compiled")
MODELS = (
    "coc_tiny", "coc_small", "coc_medium", "hcformer_tiny", "hcformer_small", "deit_tiny_patch16_224",
    "poolformer_s12", "poolformer_s24", "resnet50", "swin_tiny_patch4_window7_224",
)  # fmt: skip


def forms(args: Namespace) -> list[str]:
    return [form for form in FORMS if "eager" in form or not args.no_compile]


def contender(args: Namespace, name: str, form: str, size: int = 224, **kwargs: object):
    """`steps` of a network in one form."""
    import torch

    if "compiled" in form:
        torch.compiler.reset()  # what earlier contenders compiled
        torch._dynamo.config.recompile_limit = 64  # counts modules of one class together
    given = {"bf16": "bf16" in form, "compile": "compiled" in form, "size": size}
    return steps(name, Namespace(**vars(args) | given), **kwargs)


def peaks(args: Namespace) -> dict[str, tuple[Callable[[], object], int]]:
    """A large product in each precision."""
    return {form: product_task(args.device, dtype) for form, dtype in (("float32", "float32"), ("bf16", "bfloat16"))}


def rate(args: Namespace, macs: float, seconds: float) -> float:
    """Achieved FLOP/s."""
    return 2 * macs * args.batch / seconds


def table(args: Namespace, models: tuple[str, ...] | list[str] = MODELS) -> None:
    """Time, print, and write to `args.csv`."""
    rows: list[dict[str, object]] = []
    for form in forms(args):
        for batch in sorted({1, args.batch} if "eager" in form else {args.batch}):
            print(f"models, {form}, batch {batch}", file=sys.stderr)
            each = Namespace(**vars(args) | {"batch": batch})
            contenders = [contender(each, name, form) for name in models]
            task, size = peaks(args)[form.split()[0]]
            *infer, product = in_turns([c[0] for c in contenders] + [task], args.seconds, args.device)
            trained = "eager" in form and batch == args.batch
            train = in_turns([c[1] for c in contenders], args.seconds, args.device) if trained else []
            for i, name in enumerate(models):
                achieved = rate(each, contenders[i][2], infer[i])
                rows.append({
                    "in": (form, batch), "model": name, "form": form, "batch": batch,
                    "GMAC": f"{contenders[i][2] / 1e9:.3f}", "infer img/s": f"{batch / infer[i]:.4g}",
                    "train img/s": f"{batch / train[i]:.4g}" if trained else "",
                    "GFLOP/s": f"{achieved / 1e9:.4g}", "of peak": f"{achieved * product / size:.2f}",
                })  # fmt: skip
            save(args, [{k: v for k, v in row.items() if k != "in"} for row in rows], size=224)
    show(f"{args.device}, {args.threads} threads", rows, left=("model", "form"), sections="in")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="ours or timm's")
    args = started(parser, "models")

    import pointmix

    try:
        for name in args.models:  # before anything is timed
            pointmix.create_model(name.partition(" ")[0])
    except ValueError as error:
        parser.exit(2, f"error: --models: {error}\n")
    table(args, args.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
