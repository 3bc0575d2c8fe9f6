"""Rows "share" and "single" of benchmarks/run.py: how near to the limit of the machine do our networks and timm's come?

The limit is the rate of a large matrix product in the same turns. The share of a network is twice the multiply-adds of
its own forward pass (linear, convolution and matrix products), in training three times that, over its time and the
limit. Networks of timm count in the layout of memory in which they are faster.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator

from common import in_turns, product_task
from goals import LEAST, MOST, OF_BEST, OF_LIMIT, line
from image_models import steps

OURS = ("coc_tiny", "coc_small", "coc_medium", "hcformer_tiny", "fec_small")
TIMM = ("convnext_nano", "resnet50", "swin_tiny_patch4_window7_224", "poolformer_s12", "deit_tiny_patch16_224")
DEIT = TIMM[-1]
PRECISIONS = {"float32": "float32", "bf16": "bfloat16"}  # bf16 is autocast
KINDS = ("inference", "training")
Steps = tuple[Callable[[], None], Callable[[], None], float]


def contender(args: Namespace, name: str, precision: str, size: int = 224, **kwargs: object) -> Steps:
    """`steps` of an eager network in one precision."""
    given = {"bf16": precision == "bf16", "compile": False, "size": size}
    return steps(name, Namespace(**vars(args) | given), **kwargs)


def base(name: str) -> str:
    return name.partition(" ")[0]


def networks(args: Namespace) -> list[str]:
    """Ours; on a GPU also on the fused kernels."""
    found = [name for name in OURS if name in args.models]
    return found + [f"{name} (triton)" for name in found if args.device == "cuda"]


def shares(args: Namespace, contenders: dict[str, Steps], precision: str, kind: str) -> dict[str, tuple[float, float]]:
    """Seconds of a step and the share of the limit, of each contender."""
    product, size = product_task(args.device, PRECISIONS[precision])
    i = KINDS.index(kind)
    *times, top = in_turns([c[i] for c in contenders.values()] + [product], args.seconds, args.device)
    work = {name: 2 * c[2] * args.batch * (1, 3)[i] for name, c in contenders.items()}
    return {name: (t, work[name] / t * top / size) for name, t in zip(contenders, times, strict=True)}


def share(args: Namespace, row: str) -> Iterator[dict]:
    ours, theirs = networks(args), [name for name in TIMM if name in args.models]
    for precision in args.precisions:
        names = [*ours, *theirs, *(f"{name} (channels last)" for name in theirs)]
        contenders = {name: contender(args, name, precision) for name in names}
        for kind in KINDS:
            form, found = f"{precision} {kind}", shares(args, contenders, precision, kind)
            better = [max(name, f"{name} (channels last)", key=lambda n: found[n][1]) for name in theirs]
            best = max(better, key=lambda n: found[n][1], default=None)
            alone = best is None or form == "float32 inference"  # judged by the limit itself
            goals = OF_LIMIT if form == "float32 inference" else {} if alone else OF_BEST
            for name in [*ours, *better]:
                taken, of_limit = found[name]
                yield line(
                    args, row, name, form, f"{args.batch / taken:.4g} images/s",
                    of_limit if alone else of_limit / found[best][1],
                    "the limit" if alone else f"best of timm's, {best}", least=goals.get(name), of_limit=of_limit,
                )  # fmt: skip


def single(args: Namespace, row: str) -> Iterator[dict]:
    """One image at a time: per operation against deit_tiny, and on a CPU the share of the time that Python takes."""
    one = Namespace(**vars(args) | {"batch": 1})
    names = [*networks(args), DEIT]
    for precision in args.precisions:
        form, contenders = f"{precision} inference", {name: contender(one, name, precision) for name in names}
        found = shares(one, contenders, precision, "inference")
        for name in names:
            taken, of_limit = found[name]
            yield line(
                one, row, name, form, f"{taken * 1e3:.4g} ms", of_limit / found[DEIT][1], "deit_tiny, per operation",
                least=LEAST[row] if name in OURS else None, of_limit=of_limit,
            )  # fmt: skip
            if args.device == "cpu":
                python = outside(contenders[name][0])
                yield line(
                    one, row, f"{name}, Python", form, f"{python * taken * 1e3:.4g} ms", python, "time",
                    most=MOST["python"] if name in OURS else None,
                )  # fmt: skip


def outside(task: Callable[[], None], calls: int = 10) -> float:
    """The share of a task's time outside of torch's operators. Both times are of the same profiled calls, which take
    about 7 % longer than others."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        begin = time.perf_counter()
        for _ in range(calls):
            task()
        taken = time.perf_counter() - begin
    inside = sum(each.self_cpu_time_total for each in found.key_averages() if "::" in each.key)  # microseconds
    return 1 - inside / 1e6 / taken
