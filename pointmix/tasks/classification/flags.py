"""The flags that the classification of images and of clouds have in common."""

from __future__ import annotations

from argparse import ArgumentParser

from pointmix.tasks.base import Command


def add_arguments(parser: ArgumentParser, command: Command) -> None:
    """Add the flags of classification to those of a command."""
    if command == "evaluate":
        parser.add_argument("--keep", type=float, nargs="+", help="shares of the points to measure at, for a curve")
    if command == "predict":
        topk = "classes to show for each file (default 5)"
        parser.add_argument("--topk", type=int, default=5, metavar="K", help=topk)
        table = "write the classes and their probabilities into this file, .csv or .json"
        parser.add_argument("--out", metavar="FILE", help=table)
        parser.add_argument("--clusters", metavar="PNG", help="draw what the network clustered into this file")
