"""Rows of benchmarks/run.py in which one thing is timed against another: "literal", "memory", "compiled", "pointmlp",
"dense" and "clustering"."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator

from common import copy_task, in_turns
from goals import LEAST, LITERAL, MOST, line
from image_models import memory_of, steps
from shares import KINDS, PRECISIONS, base, contender, networks

COC = ("coc_tiny", "coc_small", "coc_medium")
DENSE = ("coc_tiny", "coc_small")
DENSE_SIZE = 512


def literal(args: Namespace, row: str) -> Iterator[dict]:
    """Inference and a training step against the same weights in the papers' form, see image_literal.py."""
    for name in networks(args):
        if base(name) not in COC:
            continue
        for precision in args.precisions:
            both = [contender(args, each, precision) for each in (name, f"{base(name)} (literal)")]
            for i, kind in enumerate(KINDS):
                form = f"{precision} {kind}"
                taken, other = in_turns([c[i] for c in both], args.seconds, args.device)
                yield line(
                    args, row, name, form, f"{args.batch / taken:.4g} images/s", other / taken, "literal",
                    least=LITERAL.get(form, {}).get(name),
                )  # fmt: skip


def memory(args: Namespace, row: str) -> Iterator[dict]:
    argv = [f"--batch={args.batch}", f"--device={args.device}", f"--threads={args.threads}"]
    for name in COC:
        for precision in args.precisions:
            if name in args.models:
                more = ["--bf16"] if precision == "bf16" else []
                ours, other = (memory_of(each, argv + more) for each in (name, f"{name} (literal)"))
                yield line(
                    args, row, name, f"{precision} training", f"{ours / args.batch:.4g} MiB an image",
                    ours / max(other, 1), "literal", most=MOST[row],
                )  # fmt: skip


def compiled(args: Namespace, row: str) -> Iterator[dict]:
    """Against eager, and the seconds of the first call, with nothing kept from earlier runs."""
    import torch
    from torch._inductor.utils import fresh_cache

    for name in (name for name in args.models if name in networks(args)):
        for precision in args.precisions:
            for i, kind in enumerate(KINDS):
                form, given = f"{precision} {kind}", {"bf16": precision == "bf16", "size": 224}
                torch.compiler.reset()
                eager = contender(args, name, precision)[i]
                fast = steps(name, Namespace(**vars(args) | given | {"compile": True}))[i]
                eager()  # compiles our own kernels
                with fresh_cache():
                    begin = time.perf_counter()
                    fast()
                    first = time.perf_counter() - begin
                goal = MOST["compile s"] if name == "coc_tiny" else None
                yield line(args, row, f"{name}, first call", form, f"{first:.4g} s", first, "seconds", most=goal)
                slow, taken = in_turns([eager, fast], args.seconds, args.device)
                measured = f"{args.batch / taken:.4g} images/s"
                yield line(args, row, name, form, measured, slow / taken, "eager", least=LEAST[row])


def pointmlp(args: Namespace, row: str) -> Iterator[dict]:
    """pointmlp_coc on clouds of 1024 points against the same weights in the papers' form, see pointmlp_literal.py."""
    from points_models import steps as of_clouds

    name, batch = "pointmlp_coc", max(args.batch // 4, 2)  # batch normalization
    for precision in args.precisions:
        given = Namespace(batch=batch, points=1024, device=args.device, bf16=precision == "bf16")
        both = [of_clouds(each, given) for each in (name, f"{name} (literal)")]
        for i, kind in enumerate(KINDS):
            taken, other = in_turns([c[i] for c in both], args.seconds, args.device)
            yield line(
                args, row, name, f"{precision} {kind}", f"{batch / taken:.4g} clouds/s", other / taken, "literal",
                least=LEAST[row] if kind == "training" else None, batch=batch,
            )  # fmt: skip


def dense(args: Namespace, row: str) -> Iterator[dict]:
    """Training steps of segmenters and detectors against the same networks on full maps."""
    import detect_literal
    import segment

    batches = {"segmentation": max(args.batch // 4, 1), "detection": max(args.batch // 8, 1)}
    modules = {"segmentation": segment, "detection": detect_literal}
    given = Namespace(**vars(args) | {"size": DENSE_SIZE})
    for name in DENSE:
        for task, module in modules.items():
            if name in args.models and "float32" in args.precisions:
                batch = batches[task]
                both = [module.step(name, kind, batch, given) for kind in ("ours", "literal")]
                taken, other = in_turns(both, args.seconds, args.device)
                yield line(
                    args, row, f"{name}, {task}", "float32 training", f"{batch / taken:.4g} images/s", other / taken,
                    "full maps", least=LEAST[row], batch=batch,
                )  # fmt: skip


def clustering(args: Namespace, row: str) -> Iterator[dict]:
    """The op alone: the kernel on a GPU, products on a CPU; its limit is the rate of a copy."""
    from clustering import SHAPES, contenders

    copy, size = copy_task(args.device)
    ours = "kernel" if args.device == "cuda" else "products"
    for precision in args.precisions:
        for name in SHAPES:
            tasks, moved = contenders(name, Namespace(**vars(args) | {"dtype": PRECISIONS[precision]}))
            for i, what in enumerate(("values", "with gradients")):
                turns = [*(tasks[way][i] for way in (ours, "direct")), copy]
                taken, direct, copying = in_turns(turns, args.seconds / 2, args.device)
                of_limit = moved[i] / taken * copying / size
                yield line(
                    args, row, f"{name}, {what}", precision, f"{taken * 1e3:.4g} ms", direct / taken,
                    "batched products, direct", least=LEAST[row], of_limit=of_limit,
                )  # fmt: skip
