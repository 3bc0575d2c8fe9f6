"""Write a trained classifier or segmenter as one file that runs without the code of its network.

pointmix export --run RUN --out net.pt2             # torch.export: any number of images of the run's size
pointmix export --run RUN --out net.onnx            # ONNX, for onnxruntime and others
pointmix export --run RUN --out net.pt2 --points    # partial images, and images of any size, as point sets
pointmix export --run RUN_ON_CLOUDS --out net.pt2   # clouds of any number of points
pointmix export --model coc_tiny --checkpoint FILE --out net.onnx

Segmenters, and networks of timm, are written for whole images; detectors cannot be exported.
The file holds the info of the run, such as classes, mean, std and img_size, as JSON: pointmix.json in a .pt2 (see
extra_files of torch.export.load), "pointmix" among the metadata of an .onnx. It is compared with the network on an
input of another size before it is written; the largest difference of their outputs is printed. Inputs are normalized
by mean and std as in training; outputs are logits. A .pt2 of point sets is loaded after import pointmix.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from pointmix.commands.typed import described
from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from torch import Tensor

    from pointmix.pointset import PointSet
    from pointmix.tasks.base import AnyTask
    from pointmix.tasks.protocols import Info

# of a run's info
KEPT = ("name", "task", "kwargs", "classes", "palette", "in_chans", "img_size", "mean", "std", "data")
MOST_POINTS = 256  # of a cloud: a graph is for any number


def main(argv: list[str], prog: str = "pointmix export") -> int:
    return exit_code(lambda: export(argv, prog))


def make_parser(prog: str) -> ArgumentParser:
    from pointmix.engine.command import TaskParser, add_model_arguments

    about = described(__doc__, "pointmix export", prog)
    parser = TaskParser(prog=prog, description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--run", metavar="RUN", help="run folder, or the model.safetensors of one")
    add_model_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="a .pt2 or an .onnx")
    parser.add_argument("--points", action="store_true", help="images as point sets, of any size, whole or partial")
    return parser


def export(argv: list[str], prog: str) -> None:
    """Open the network, export it, and print what was written.

    Raises:
        ImportError, OSError, ValueError: one line.
    """
    from pointmix.engine.command import import_modules

    args = make_parser(prog).parse_args(import_modules(argv))
    from pointmix.engine.export import check_export, export_model
    from pointmix.engine.inference import open_model, pick_device
    from pointmix.pointset import PointSet
    from pointmix.tasks.base import DEFAULT_TASK, get_task

    check_export(args.out, points=args.points)
    device, task_name = pick_device(args.device or "cpu"), args.task or (None if args.run else DEFAULT_TASK)
    named = {"model": args.model, "checkpoint": args.checkpoint, "task": task_name}
    model, info = open_model(run=args.run, **named, device=device)
    task = get_task(info["task"])
    blank = blank_input(task, info, points=args.points)
    if args.points and not (isinstance(blank, PointSet) or hasattr(model, "explain")):
        raise ValueError(f"--points needs a model of points; {info['name']} takes whole images only")
    example = like(blank, points=args.points).to(device)
    check_export(args.out, points=isinstance(example, PointSet))
    difference = export_model(model, example, args.out, info=shared(info))
    print(f"written to {args.out}; the outputs differ from the network's by {difference:.1g} at most")


def blank_input(task: AnyTask, info: Info, *, points: bool) -> Tensor | PointSet:
    """An input of a kind that can be exported: images, or a cloud.

    Raises:
        ValueError: there is none.
    """
    from pointmix.layouts.grid import Grid
    from pointmix.tasks.classification.task import ClassificationTask
    from pointmix.tasks.segment.task import Segment

    if isinstance(task, ClassificationTask):
        return task.example_input(info)
    blank = task.example_input(info) if isinstance(task, Segment) and not points else None
    if blank is None or not isinstance(blank.layout, Grid) or info["categories"]:
        what = f"{info['name']} for {task.name}{' of point sets' if isinstance(task, Segment) else ''}"
        raise ValueError(f"{what} cannot be exported: expected a classifier, or a segmenter of images")
    image = blank.to_image()
    assert not isinstance(image, list)  # one size
    return image


def shared(info: Info) -> Info:
    """What an exported file holds of a run's info: local paths, such as data.root, are replaced by their last part."""
    from pointmix.engine.hub import PATHS
    from pointmix.utils.local_paths import PathHider

    kept = {key: info[key] for key in KEPT if key in info}
    hidden: Info = PathHider([kept], keys=PATHS).hide(kept)
    return hidden


def like(blank: Tensor | PointSet, *, points: bool) -> Tensor | PointSet:
    """Random input of the kind of a blank one: two images, as partial ones with `points`, or two clouds.

    Outputs of a blank input would say little about a network.
    """
    import torch

    from pointmix.pointset import PointSet

    if isinstance(blank, PointSet):
        few = blank.subset(torch.arange(min(len(blank.pos), MOST_POINTS)))
        sets = [PointSet(torch.rand_like(few.pos), torch.randn_like(few.feat), few.ptr) for _ in range(2)]
        return PointSet.cat(sets)
    images = torch.randn(2, *blank.shape[1:])
    if not points:
        return images
    masks = torch.rand(2, *blank.shape[2:]) < 0.5
    masks[:, 0, 0] = True
    return PointSet.from_images(images, masks)
