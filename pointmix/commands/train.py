"""Train a network, or go on with a training that was stopped.

pointmix train                                        # a small network on handwritten digits, about a minute
pointmix train image --data.root DIR --model.name coc_tiny       # your photographs, one folder for each class
pointmix train image --config image/coc_cifar10 --data.root DIR  # a recipe that comes with pointmix
pointmix train image --config my_recipe.yaml --epochs 3          # a file of yours; flags win over it
pointmix train points                                 # shapes in 3D, about two minutes
pointmix train segment                                # a label for every pixel or every point
pointmix train detect                                 # a box, a class and a mask for each object
pointmix train --import my_package.my_task --task my_task        # a task that a module of yours registers
torchrun --nproc_per_node 8 -m pointmix train image --config image/coc_tiny_in1k --data.root DIR

Without a word, image is trained. --help after a word lists its flags: pointmix train points --help.
The same command again resumes where the training was stopped. pointmix recipes lists the recipes.
"""

from __future__ import annotations

import argparse

from pointmix.commands.typed import described, typed
from pointmix.engine.command import train_command
from pointmix.utils.cli import exit_code

KINDS = {  # a word, its task, and the recipe that is trained where nothing else is named: its data needs no download
    "image": ("classify_images", "image/coc_digits"),
    "points": ("classify_points", "points/coc_shapes"),
    "segment": ("segment", "segment/digit_scenes"),
    "detect": ("detect", "detect/digit_objects"),
}


def main(argv: list[str], prog: str = "pointmix train") -> int:
    if argv and not argv[0].startswith("-"):
        return train(argv[0], argv[1:], prog=f"{prog} {argv[0]}")
    if any(arg.split("=")[0] == "--task" for arg in argv):
        return train_command(argv, prog=prog)
    if {"-h", "--help"} & set(argv):
        print(f"usage: {prog} [{' | '.join(KINDS)}] [--config RECIPE] [flags]\n")
        print(described(__doc__, "pointmix train", prog))
        return 0
    return train("image", argv, prog=f"{prog} image")


def train(kind: str, argv: list[str], *, prog: str) -> int:
    """Train as flags and recipes say; returns the exit code.

    Args:
        kind: a word of KINDS.
        prog: name of the command in messages.
    """
    if code := exit_code(lambda: check(kind, argv, prog=prog)):
        return code
    task, recipe = KINDS[kind]
    return train_command(argv, task=task, prog=prog, embedded=recipe)


def check(kind: str, argv: list[str], *, prog: str) -> None:
    """Refuse another word, and a recipe of another one.

    Raises:
        ValueError: one line with what is expected.
    """
    from pointmix.engine.shipped import find, head

    if kind not in KINDS:
        raise ValueError(f"no kind of training is called {kind!r}, expected one of {', '.join(KINDS)}, or --task")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    for name in parser.parse_known_args(argv)[0].config:
        found = None if "\n" in name else head(find(name))
        if found is not None and found.kind not in (kind, None):
            own = "train.py" if prog.endswith(".py") else prog.removesuffix(f" {kind}")
            other = f"train_{found.kind}.py" if prog.endswith(".py") else f"{own} {found.kind}"
            raise ValueError(f"{name} is a recipe of {typed(other)}, not of {typed(prog)}")
