"""The flags of the classification of images."""

from __future__ import annotations

from argparse import ArgumentParser

from pointmix.tasks.base import Command
from pointmix.tasks.classification import flags


def add_arguments(parser: ArgumentParser, command: Command) -> None:
    """Add the flags of the classification of images to those of a command."""
    flags.add_arguments(parser, command)
    if command == "evaluate":
        what = "what the masks of --keep are made of, as --data.mask"
    else:
        what = "image of the same size as each image; zero hides a pixel"
    parser.add_argument("--mask", metavar="KIND" if command == "evaluate" else "FILE", help=what)
