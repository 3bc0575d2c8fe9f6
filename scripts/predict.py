"""Predict for files with a trained network: classes of images or clouds, or whatever its task predicts.

python scripts/predict.py --run RUN cat.jpg dog.png
python scripts/predict.py --run RUN cat.jpg --mask cat_mask.png --clusters clusters.png
python scripts/predict.py --model coc_tiny --checkpoint FILE cat.jpg
python scripts/predict.py --run RUN_ON_CLOUDS scan.ply other.npy --clusters clusters.png
python scripts/predict.py --run SEGMENTER_RUN photos/ street.jpg --out labels/ --confidence
python scripts/predict.py --run SEGMENTER_RUN_ON_CLOUDS scans/ --out labels/ --votes 3
python scripts/predict.py --run DETECTOR_RUN photos/ --out found/ --score 0.7    # or --out found.json, found.csv
python scripts/predict.py --run RUN FILE --import my_package.my_task      # of a task of yours

Of a folder, every image and cloud below it is predicted. A file that cannot be used is named on stderr and the others
are still predicted; the exit code is then 2.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from pointmix.engine.command import TaskParser


def make_parser() -> TaskParser:
    from pointmix.engine.command import TaskParser, add_model_arguments

    parser = TaskParser(prog="predict.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="images, clouds in .ply, .npy, .npz or .h5, or folders"
    )
    parser.add_argument("--run", metavar="RUN", help="run folder, or the model.safetensors of one")
    add_model_arguments(parser)
    return parser


def predict(argv: list[str]) -> None:
    import torch
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from pointmix.engine.command import import_modules, parse_any, parse_for
    from pointmix.engine.inference import open_model, pick_device
    from pointmix.tasks.base import DEFAULT_TASK, get_task
    from pointmix.utils.messages import is_out_of_memory, one_line

    argv = import_modules(argv)
    args = parse_any(make_parser, "predict", argv)
    named = {
        "model": args.model,
        "task": args.task or (None if args.run else DEFAULT_TASK),
        "checkpoint": args.checkpoint,
    }
    model, info = open_model(run=args.run, **named, device=pick_device(args.device))
    task = get_task(info["task"])
    args = parse_for(task, make_parser, "predict", argv, what=args.run or args.model)
    args.files = below(args.files, getattr(args, "out", None))
    predictor = task.build_predictor(model, info, args)

    table = Table("file", *predictor.columns)
    for column in table.columns:
        column.overflow = "fold"
    table.columns[-1].justify = "right"
    done = 0
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
                continue
            done += 1
            for i, row in enumerate(rows):
                table.add_row(Text(path if i == 0 else ""), *map(Text, row))
            table.add_section()
    if done:
        Console().print(table)
        for line in predictor.finish():
            print(line)
    failed = len(args.files) - done
    if several:
        print(f"{done} predicted, {failed} failed")
    if failed:
        raise ValueError(f"{failed} of {len(args.files)} files have no prediction")


def below(paths: list[str], out: str | None) -> list[str]:
    """Files, and in place of a folder the images and clouds below it, in the order of their names.

    Args:
        out: folder of the outputs; what is below it is no input.

    Raises:
        ValueError: a folder has no image or cloud.
    """
    from pointmix.data.paths import is_junk
    from pointmix.io import formats  # noqa: F401  registers the readers
    from pointmix.io.registry import CLOUD_READERS, IMAGE_READERS

    files = []
    for path in paths:
        folder, found = Path(path), []
        if not folder.is_dir():
            files.append(path)
            continue
        inside = out is not None and folder.resolve() in Path(out).resolve().parents
        for file in sorted(folder.rglob("*")):
            known = file.suffix.lower() in IMAGE_READERS or file.suffix.lower() in CLOUD_READERS
            is_output = inside and Path(out or "").resolve() in file.resolve().parents
            if known and file.is_file() and not is_junk(file.relative_to(folder)) and not is_output:
                found.append(str(file))
        if not found:
            raise ValueError(
                f"no image or cloud below the folder {path}, expected {', '.join(IMAGE_READERS)} and so on"
            )
        files += found
    return files


def main(argv: list[str]) -> int:
    return exit_code(lambda: predict(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
