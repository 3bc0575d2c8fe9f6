"""The flags of the classification of point clouds."""

from __future__ import annotations

from argparse import ArgumentParser

from pointmix.tasks.base import Command
from pointmix.tasks.classification import flags
from pointmix.tasks.flags import add_nan_argument

COLUMNS = "names of the columns without one in a cloud's file, in order, such as rgb,intensity"
VOTES = (
    "mean of this many votes on a cloud; beyond one look at every point, on clouds scaled at random (default: one look "
)
VOTES += "at every point of randomly sampled clouds, in parts; with --keep one vote)"


def add_arguments(parser: ArgumentParser, command: Command) -> None:
    """Add the flags of the classification of clouds to those of a command."""
    flags.add_arguments(parser, command)
    if command == "evaluate":
        parser.add_argument("--votes", type=int, metavar="N", help=VOTES)
    else:
        _add_files(parser)
    if command == "predict":
        parser.add_argument("--votes", type=int, metavar="N", help=VOTES)
    if command == "explain":
        _add_frames(parser)


def _add_files(parser: ArgumentParser) -> None:
    """Flags for reading a cloud's file."""
    parser.add_argument("--index", type=int, metavar="I", help="which cloud of a file that holds many")
    parser.add_argument("--columns", type=lambda text: text.split(","), metavar="NAMES", help=COLUMNS)
    add_nan_argument(parser)


def _add_frames(parser: ArgumentParser) -> None:
    """Flags for RGB-D frames and for the view."""
    parser.add_argument("--mask", metavar="FILE", help="image of the size of --depth; zero hides a pixel")
    parser.add_argument("--depth", metavar="FILE", help="depth image: 16-bit millimeters, or floats in meters")
    parser.add_argument("--depth_scale", type=float, default=1000.0, metavar="S", help="units a meter (default 1000)")
    parser.add_argument("--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help="of the camera")
    parser.add_argument(
        "--up",
        help="the axis of a cloud that points upwards, such as z or =-z (default: data.up of the run, else y); with it "
        "the page shows a frame as a cloud",
    )
