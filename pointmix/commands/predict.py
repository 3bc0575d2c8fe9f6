"""Predict for files with a trained network: classes of images or clouds, or whatever its task predicts.

pointmix predict --run RUN cat.jpg dog.png
pointmix predict --run RUN cat.jpg --mask cat_mask.png --clusters clusters.png
pointmix predict --model coc_tiny --checkpoint FILE cat.jpg
pointmix predict --run RUN_ON_CLOUDS scan.ply other.npy --clusters clusters.png
pointmix predict --run RUN photos/ 'more/**/*.jpg' --topk 1 --out classes.csv
pointmix predict --run SEGMENTER_RUN photos/ street.jpg --out labels/ --confidence
pointmix predict --run SEGMENTER_RUN_ON_CLOUDS scans/ --out labels/ --votes 3
pointmix predict --run DETECTOR_RUN photos/ --out found/ --score 0.7    # or --out found.json, found.csv
pointmix predict --run RUN FILE --import my_package.my_task      # of a task of yours

Of a folder, every image below it is predicted, or every cloud for a run on clouds, and of a pattern in quotes, what it
matches. With --out, the table is written as .csv or .json. A file that cannot be used is named on stderr and the others
are still predicted; the exit code is then 2.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pointmix.commands.typed import described
from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from pointmix.engine.command import TaskParser


def make_parser(prog: str) -> TaskParser:
    from pointmix.engine.command import RUN, TaskParser, add_model_arguments

    about = described(__doc__, "pointmix predict", prog)
    parser = TaskParser(prog=prog, description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="images, clouds, folders of them, or patterns such as 'scans/**/*.ply'"
    )
    parser.add_argument("--run", metavar="RUN", help=RUN)
    add_model_arguments(parser)
    return parser


def predict(argv: list[str], prog: str) -> None:
    from pointmix.engine.command import import_modules, parse_any, parse_for

    argv = import_modules(argv)
    make = partial(make_parser, prog)
    args = parse_any(make, "predict", argv)

    import torch  # takes a second; --help and wrong flags have ended before
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from pointmix.engine.inference import open_model, pick_device
    from pointmix.engine.predictions import input_files, write_table
    from pointmix.tasks.base import DEFAULT_TASK, get_task
    from pointmix.tasks.protocols import TABLES, Row
    from pointmix.utils.atomic import check_place
    from pointmix.utils.messages import is_out_of_memory, one_line

    named = {
        "model": args.model,
        "task": args.task or (None if args.run else DEFAULT_TASK),
        "checkpoint": args.checkpoint,
    }
    model, info = open_model(run=args.run, **named, device=pick_device(args.device))
    task = get_task(info["task"])
    args = parse_for(task, make, "predict", argv, what=args.run or args.model)
    out = getattr(args, "out", None)  # of segmentation a folder, too
    out_table = out if out is not None and out.lower().endswith(TABLES) else None
    if out_table:
        check_place(out_table)
    args.files, left_out = input_files(args.files, out, kind=task.input_kind(info))
    predictor = task.build_predictor(model, info, args)

    table = Table("file", *predictor.columns)
    for column in table.columns:
        column.overflow = "fold"
    table.columns[-1].justify = "right"
    found: dict[str, Sequence[Row]] = {}
    failures: dict[str, str] = {}
    several = len(args.files) > 1
    bar = Progress(console=Console(stderr=True), transient=True, disable=not (several and sys.stderr.isatty()))
    with bar:
        for path in bar.track(args.files):
            try:
                with torch.inference_mode():
                    rows = predictor.predict(path)
            except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as e:
                no_memory = is_out_of_memory(e)
                if isinstance(e, RuntimeError) and not no_memory:
                    raise
                why = "it needs more memory than there is" if no_memory else str(e)
                why = why if path in why else f"{path}: {why}"
                if not several:
                    raise ValueError(why) from e
                print("error:", one_line(why, 4000), file=sys.stderr)
                failures[path] = why
                continue
            found[path] = rows
            for i, row in enumerate(rows):
                table.add_row(Text(path if i == 0 else ""), *(Text(cell_text(cell)) for cell in row))
            table.add_section()
    if found and not out_table:
        Console().print(table)
    for line in predictor.finish() if found else ():
        print(line)
    if out_table and not getattr(predictor, "writes_out", False):
        write_table(out_table, predictor.columns, found, failures)
        print(f"predictions for {len(found)} files in {out_table}")
    if several:
        print(f"{len(found)} predicted, {len(failures)} failed")
    if left_out:
        print(f"{len(left_out)} left out, of another kind, the first {left_out[0]}")
    if failures:
        raise ValueError(f"{len(failures)} of {len(args.files)} files have no prediction")


def cell_text(cell: str | int | float) -> str:
    """A cell of the table as it is shown: a float is a share or a score."""
    from pointmix.utils.messages import one_line

    return f"{cell:.1%}" if isinstance(cell, float) else one_line(str(cell))


def main(argv: list[str], prog: str = "pointmix predict") -> int:
    return exit_code(lambda: predict(argv, prog))
