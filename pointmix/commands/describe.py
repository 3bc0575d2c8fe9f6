"""Say what a model is made of: parameters, multiply-adds, and the points, windows and centers of its stages.

pointmix describe coc_tiny
pointmix describe coc_small --img_size 512 --kwargs '{"pyramid": true}'
pointmix describe pointmlp_elite --points 2048 --num_classes 15
pointmix describe coc_tiny --in_chans 0 --kwargs.coord_dims 3       # on clouds
pointmix describe coc_small --task segment                          # with Semantic FPN, 512 pixels
pointmix describe coc_small --task detect                           # with Mask R-CNN, 1280 x 800 pixels
pointmix describe deit_tiny_patch16_224                             # any model of timm

Parameters and multiply-adds are given in powers of ten and of two: papers write M and G for either. Multiply-adds are
those of the reference form, convolutions and linear maps alone or with more of what the fvcore library counts, see
pointmix/profile/macs.py.
"""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pointmix.commands.typed import described
from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

    from pointmix.pointset import PointSet
    from pointmix.profile.macs import Macs, Part
    from pointmix.profile.published import Published


def parse(argv: list[str], prog: str) -> Any:
    from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

    from pointmix.engine.command import import_modules

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        pass

    what = described(__doc__, "pointmix describe", prog)
    also = "--import MODULE imports a module of yours first, which may register models."
    parser = ArgumentParser(prog=prog, description=what, epilog=also, exit_on_error=False, formatter_class=Formatter)
    parser.add_argument("model", type=str, help="one of our models or of timm's")
    tasks = "classify; segment or detect: the model as backbone of a Semantic FPN or of Mask R-CNN, as in its paper"
    parser.add_argument("--task", type=Literal["classify", "segment", "detect"], default="classify", help=tasks)
    size = "pixels a side (default: the model's own, mostly 224; 512 to segment, 1280 rows and 800 columns to detect)"
    parser.add_argument("--img_size", type=int | None, help=size)
    parser.add_argument("--points", type=int, default=1024, help="points of a cloud, drawn evenly in a cube")
    classes = "classes (default: the model's own; 150 to segment, 80 to detect)"
    parser.add_argument("--num_classes", type=int | None, help=classes)
    parser.add_argument("--in_chans", type=int | None, help="channels of the input, besides coordinates")
    parser.add_argument("--kwargs", type=dict[str, Any] | None, help='other arguments, as {"depths": [1, 1, 1, 1]}')
    try:
        args = parser.parse_args(import_modules(argv))
    except (ArgumentError, TypeError) as e:
        raise ValueError(" ".join(str(e).split())) from e
    for name in ("img_size", "points"):
        if args[name] is not None and args[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {args[name]}")
    return args


def build(args: Any) -> tuple[nn.Module, Tensor | PointSet, str]:
    """The model, an input for it, and what that is."""
    import torch

    from pointmix.models import create_model

    if args.task != "classify":
        return build_dense(args)
    given = {"num_classes": args.num_classes, "in_chans": args.in_chans}
    kwargs = {k: v for k, v in given.items() if v is not None} | dict(args.kwargs or {})
    if args.img_size is not None and _fixed_size(args.model):
        kwargs["img_size"] = args.img_size
    try:
        model: Any = create_model(args.model, **kwargs).eval()
    except (RuntimeError, TypeError, AssertionError) as e:
        raise ValueError(f"cannot create model {args.model} with {kwargs}: {e}") from e
    size = model.pretrained_cfg.get("input_size")
    dims = getattr(model, "coord_dims", 2)
    if size is None or dims != 2:
        return model, random_cloud(args.points, dims, model.in_chans), f"{args.points} points"
    side = args.img_size or size[-1]
    channels = kwargs.get("in_chans", size[0])
    return model, torch.zeros(1, channels, side, side), f"{side} x {side} pixels"


def build_dense(args: Any) -> tuple[nn.Module, Tensor | PointSet, str]:
    """The segmenter or detector, an input for it, and what that is."""
    import torch

    from pointmix.models.detector import create_detector
    from pointmix.models.segmenter import create_segmenter
    from pointmix.profile.published import DETECTORS, SEGMENTERS

    detect = args.task == "detect"
    create: Callable[..., nn.Module] = create_detector if detect else create_segmenter
    kind = "detector" if detect else "segmenter"
    known = (DETECTORS if detect else SEGMENTERS).get(args.model)
    paper = dict(known.kwargs) if known else {}
    kwargs = paper | dict(args.kwargs or {})
    channels = 3 if args.in_chans is None else args.in_chans
    classes = args.num_classes if args.num_classes is not None else 80 if detect else 150
    size = (args.img_size, args.img_size) if args.img_size else (1280, 800) if detect else (512, 512)
    if _fixed_size(args.model):
        kwargs.setdefault("img_size", size)
    try:
        model: Any = create(args.model, classes, in_chans=channels, **kwargs).eval()
    except (RuntimeError, TypeError, AssertionError) as e:
        raise ValueError(f"cannot create {kind} {args.model} with {kwargs}: {e}") from e
    settings = "".join(f", {key} {value}" for key, value in paper.items() if kwargs[key] == value)
    if model.coord_dims not in (None, 2):
        points = random_cloud(args.points, model.coord_dims, channels)
        return model, points, f"{args.points} points{settings}"
    return model, torch.zeros(1, channels, *size), f"{size[0]} x {size[1]} pixels{settings}"


def random_cloud(points: int, dims: int, channels: int) -> PointSet:
    """Points drawn evenly in a cube, with features of zero."""
    import torch

    from pointmix.pointset import PointSet

    pos = torch.rand(points, dims, generator=torch.Generator().manual_seed(0))
    return PointSet(pos, pos.new_zeros(points, channels), torch.tensor([0, points]))


def _fixed_size(name: str) -> bool:
    """Whether a model is built for images of one size."""
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(name)
    return known is not None and known.fixed_input_size


def show(args: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    from pointmix.profile.macs import count, count_layers, has_parts, parameters, total
    from pointmix.profile.published import DETECTORS, PUBLISHED, SEGMENTERS

    model, x, what = build(args)
    parts, macs = [], None
    try:
        if has_parts(model):
            parts = count(model, x)
            macs = total(parts)
        else:
            macs = count_layers(model, x)
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f"{args.model} does not take {what}: {str(e).splitlines()[0]}") from e
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else 200  # files and pipes take whole lines
    console.print(Text(f"{args.model} on {what}, {getattr(model, 'num_classes', 0)} classes"))
    published, side, classes = {
        "classify": (PUBLISHED, 224, None),
        "segment": (SEGMENTERS, 512, 150),
        "detect": (DETECTORS, None, 80),
    }[args.task]
    usual: dict[str, tuple[Any, ...]] = {"points": (1024,), "in_chans": (None,), "kwargs": (None,)}
    usual |= {"img_size": (None, side), "num_classes": (None, classes)}
    known = published.get(args.model) if all(args[key] in values for key, values in usual.items()) else None
    console.print(sums(parameters(model), macs, known, whole=bool(parts)))
    if parts:
        console.print(by_stage(parts))


def sums(parameters: int, macs: Macs, known: Published | None, *, whole: bool) -> Table:
    """Parameters and multiply-adds beside what is published; `whole` where all that fvcore counts was counted."""
    from rich.table import Table

    from pointmix.profile.published import GI, MI, G, M

    table = Table("", "exact", "10^6 or 10^9", "2^20 or 2^30", *(["published, in its unit"] if known else []))
    for column in table.columns[1:4]:
        column.justify = "right"
    beside = f"{known.parameters} M: {parameters / known.per:.3f} x {_unit(known.per)}" if known else ""
    numbers = f"{parameters:,}", f"{parameters / M:.3f} M", f"{parameters / MI:.3f} Mi"
    table.add_row("parameters", *numbers, *([beside] if known else []))
    rows = {"linear": "MACs conv + linear", "multiplied": "MACs + matrix products"}
    rows |= {"total": "MACs + norms, pooling"} if whole else {}  # fvcore's total
    for which, label in rows.items():
        number = getattr(macs, which)
        beside = ""
        if known and known.macs and known.counted == which:
            beside = f"{known.macs} G: {number / known.macs_per:.3f} x {_unit(known.macs_per)}"
        numbers = f"{number:,}", f"{number / G:.3f} G", f"{number / GI:.3f} Gi"
        table.add_row(label, *numbers, *([beside] if known else []))
    return table


def _unit(number: int) -> str:
    return {10**6: "10^6", 10**9: "10^9", 2**20: "2^20", 2**30: "2^30"}[number]


def by_stage(parts: list[Part]) -> Table:
    """Shapes, multiply-adds (all that are counted) and parameters of each part."""
    from rich.table import Table

    from pointmix.profile.macs import total

    wide = any(part.size and part.size.global_centers for part in parts)
    columns = ["points", "channels", "windows", "centers a window", *(["global centers"] if wide else [])]
    table = Table("", *columns, "MMAC (10^6)", "parameters")
    for column in table.columns[1:]:
        column.justify = "right"
    for part in parts:
        size = part.size
        shape = ["", str(part.channels), "", ""]
        if size is not None:
            points = f"{size.side[0]} x {size.side[1]}" if size.side else str(size.points)
            shape = [points, str(part.channels), str(size.windows), str(size.centers or "-")]
        if wide:
            shape.append(str(size.global_centers or "-") if size is not None else "")
        table.add_row(part.name, *shape, f"{part.macs.total / 1e6:.1f}", f"{part.parameters:,}")
    table.add_section()
    whole = f"{total(parts).total / 1e6:.1f}", f"{sum(part.parameters for part in parts):,}"
    table.add_row("all", *[""] * len(columns), *whole)
    return table


def main(argv: list[str], prog: str = "pointmix describe") -> int:
    return exit_code(lambda: show(parse(argv, prog)))
