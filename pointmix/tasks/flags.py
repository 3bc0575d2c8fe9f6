"""Flags that several tasks add to commands. Modules of flags import no torch, so that --help is quick."""

from __future__ import annotations

from argparse import ArgumentParser


def add_nan_argument(parser: ArgumentParser) -> None:
    """The flag for points that are not finite."""
    text = "clouds with NaN or infinite values: refuse the file, or drop such points and count them (default: data.nan "
    parser.add_argument("--nan", choices=("refuse", "drop"), help=text + "of the run)")
