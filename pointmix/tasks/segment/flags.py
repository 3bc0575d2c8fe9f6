"""The flags of segmentation."""

from __future__ import annotations

from argparse import ArgumentParser

from pointmix.data.images.config import MASK_KINDS
from pointmix.tasks.base import Command
from pointmix.tasks.flags import add_nan_argument


def add_arguments(parser: ArgumentParser, command: Command) -> None:
    """Add the flags of segmentation to those of a command."""
    if command in ("evaluate", "predict"):
        _add_inference(parser)
    if command in ("predict", "explain"):
        _add_files(parser)
    if command == "evaluate":
        parser.add_argument("--keep", type=float, nargs="+", help="shares of the points to measure at, for a curve")
        kind = f"what hides pixels with --keep: {', '.join(MASK_KINDS)} (default data.mask)"
        parser.add_argument("--mask", metavar="KIND", help=kind)
    if command == "predict":
        out = (
            "folder for NAME_labels.png and NAME_overlay.png, of clouds NAME.ply; or a file .csv or .json for the table"
        )
        parser.add_argument("--out", metavar="PATH", help=out)
        parser.add_argument("--confidence", action="store_true", help="write NAME_confidence.png, too")
        parser.add_argument("--format", default="ply", metavar="KIND", help="of clouds: ply (default) or npy")
        parser.add_argument(
            "--category", metavar="NAME", help="of the objects, for networks of parts of several categories"
        )
        topk = "classes to show for each file (default 5)"
        parser.add_argument("--topk", type=int, default=5, metavar="K", help=topk)


def _add_inference(parser: ArgumentParser) -> None:
    """Flags of `pointmix.tasks.segment.inference.choose.choose_infer`."""
    pair = ("ROWS", "COLS")
    sliding, stride = "images: mean over overlapping windows of this size", "from one window to the next (default 2/3)"
    parser.add_argument("--sliding", type=int, nargs=2, metavar=pair, help=sliding)
    parser.add_argument("--stride", type=int, nargs=2, metavar=pair, help=stride)
    parser.add_argument("--flip", action="store_true", help="images: mean over the image and its mirror image")
    parser.add_argument(
        "--scales", type=float, nargs="+", metavar="S", help="images: mean over these sizes, as 0.5 1 2"
    )
    fast = "clouds: one point a grid cell stands for all of it, crops overlap as little as they can"
    parser.add_argument("--fast", action="store_true", help=fast)
    parser.add_argument("--votes", type=int, default=1, metavar="N", help="clouds: sum over N views, turned and scaled")


def _add_files(parser: ArgumentParser) -> None:
    """Flags of `pointmix.tasks.segment.files.FileReader`."""
    parser.add_argument("--mask", metavar="FILE", help="image of the same size as each image; zero hides a pixel")
    parser.add_argument("--depth", metavar="PATH", help="depth image, or a folder with one of the same name for each")
    scale = "units of depth files a meter (default: as in training)"
    parser.add_argument("--depth_scale", type=float, metavar="S", help=scale)
    camera = "of the depth camera (default: as in training)"
    parser.add_argument("--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help=camera)
    parser.add_argument("--index", type=int, metavar="I", help="which cloud of a file that holds many")
    columns = "names of the columns without one in a cloud's file, in order, such as rgb,label (default: data.columns)"
    parser.add_argument("--columns", type=lambda text: text.split(","), metavar="NAMES", help=columns)
    add_nan_argument(parser)
