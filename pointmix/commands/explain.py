"""Draw what a network clusters in an image, an RGB-D frame or a cloud, or whatever its task draws: a picture of some
blocks, or a page on which to look at every block and head.

pointmix explain cat.jpg --run RUN --out clusters.png
pointmix explain cat.jpg --mask cat_mask.png --model coc_tiny --checkpoint FILE --out clusters.png
pointmix explain rgb.png --depth depth.png --intrinsics 525 525 319.5 239.5 --out clusters.png
pointmix explain scan.ply --run RUN --out page.html
pointmix explain scan.ply --run RUN --serve                     # the page in a browser, without a file
pointmix explain FILE --run RUN --import my_package.my_task --out picture.png     # of a task of yours

Without a run, the kind of file and the flags decide which task draws it.
"""

from __future__ import annotations

from argparse import Namespace, RawDescriptionHelpFormatter
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pointmix.commands.typed import described
from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from pointmix.engine.command import TaskParser


def make_parser(prog: str) -> TaskParser:
    from pointmix.engine.command import RUN, TaskParser, add_model_arguments

    about = described(__doc__, "pointmix explain", prog)
    parser = TaskParser(prog=prog, description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", help="an image or a cloud, of any kind that is read")
    parser.add_argument("--out", metavar="FILE", help=".png for a picture, .html for a page")
    serve = "serve the page on 127.0.0.1, on a free port unless PORT is given, until Ctrl-C"
    parser.add_argument("--serve", nargs="?", type=int, const=0, metavar="PORT", help=serve)
    parser.add_argument("--label", metavar="NAME", help="for a page: the true class")
    clusters = "for a page: reduce the clusters of all blocks to this many (default 8)"
    parser.add_argument("--clusters", type=int, metavar="K", help=clusters)
    parser.add_argument("--run", metavar="RUN", help=RUN)
    add_model_arguments(parser, default_task="the first that reads the file")
    return parser


def explain(argv: list[str], prog: str) -> None:
    from pointmix.engine.command import import_modules, parse_any

    argv = import_modules(argv)
    args = parse_any(partial(make_parser, prog), "explain", argv)
    if args.serve is None:
        if args.out is None:
            raise ValueError("--out FILE is missing: .png for a picture, .html for a page; or --serve")
        draw(args, argv, prog, out=args.out)
        print(f"drawn in {args.out}")
        return
    from pointmix.explain.page.serve import PORT, serve

    PORT.check(port=args.serve)
    with TemporaryDirectory() as folder:
        out = args.out or f"{folder}/page.html"
        if not out.endswith(".html"):
            raise ValueError(f"--serve is for a page, and --out {out} does not end in .html")
        draw(args, argv, prog, out=out)
        serve(out, args.serve)


def draw(args: Namespace, argv: list[str], prog: str, *, out: str) -> None:
    """Draw into the file `out`.

    Args:
        args: flags, read before the task was known.
        argv: the same.
    """
    from pointmix.engine.command import parse_for
    from pointmix.engine.epochs import kept_epochs
    from pointmix.engine.inference import open_model, pick_device
    from pointmix.tasks.base import get_task
    from pointmix.utils.atomic import check_place

    check_place(out)
    device, run = pick_device(args.device), None
    if args.run is not None:
        run = open_model(run=args.run, model=args.model, task=args.task, checkpoint=args.checkpoint, device=device)
    task = get_task(run[1]["task"] if run else args.task or task_for(args, argv))
    args = parse_for(task, partial(make_parser, prog), "explain", argv, what=args.run or args.file)
    args.out, args.device = out, device
    args.epochs = kept_epochs(args.run) if run else []
    if run is None and args.model is None:
        args.model = "coc_tiny"
    task.explain(args, run)


def task_for(args: Namespace, argv: list[str]) -> str:
    """The first task that reads the file and, if there is one, has all the flags."""
    from pointmix.engine.command import flags_of
    from pointmix.tasks.base import get_task, list_tasks

    names = [name for name in list_tasks() if get_task(name).reads(args)]
    if not names:
        raise ValueError(f"no task reads {args.file} by its name alone; name one with --run or --task")
    given = {arg.split("=")[0] for arg in argv if arg.startswith("--")}
    theirs = {name: len(given & flags_of(name, "explain")) for name in names}
    return max(names, key=theirs.__getitem__)


def main(argv: list[str], prog: str = "pointmix explain") -> int:
    return exit_code(lambda: explain(argv, prog))
