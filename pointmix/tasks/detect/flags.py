"""The flags of detection."""

from __future__ import annotations

from argparse import ArgumentParser

from pointmix.data.images.config import MASK_KINDS
from pointmix.tasks.base import Command

RESULTS = "detections.json"


def add_arguments(parser: ArgumentParser, command: Command) -> None:
    """Add the flags of detection to those of a command."""
    if command == "evaluate":
        parser.add_argument("--keep", type=float, nargs="+", help="shares of the points to measure at, for a curve")
        kind = f"what hides pixels with --keep: {', '.join(MASK_KINDS)} (default data.mask)"
        parser.add_argument("--mask", metavar="KIND", help=kind)
        coco = "write the detections as COCO's results, with the image and category ids of the data"
        parser.add_argument("--coco_json", metavar="FILE", help=coco)
    if command == "predict":
        out = f"folder for NAME_overlay.png of each image, and {RESULTS}, the boxes and masks of all in COCO's form"
        out += "; or a file: .json of that form, or .csv with the boxes"
        parser.add_argument("--out", metavar="PATH", help=out)
    if command in ("predict", "explain"):
        mask = "image of the same size as each image; zero hides a pixel"
        parser.add_argument("--mask", metavar="FILE", help=mask)
    if command == "predict":
        score = "leave out what is found with a smaller score (default 0.5)"
        parser.add_argument("--score", type=float, default=0.5, metavar="S", help=score)
