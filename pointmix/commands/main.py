"""The command `pointmix WORD ...`: each word is a module of this folder with a function `main(argv, prog)`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from pointmix.engine.versions import version
from pointmix.utils.cli import exit_code

COMMANDS = {  # a word, which is the name of its module, and what it does
    "train": "train a network on images, clouds, labels of pixels or points, or objects",
    "evaluate": "measure trained networks on test data, also with points missing",
    "predict": "classes, labels or objects for files, folders and patterns",
    "explain": "draw what a network clusters in an image, an RGB-D frame or a cloud",
    "describe": "parameters, multiply-adds and stages of a model",
    "export": "write a classifier as a file for torch.export or ONNX",
    "ablate": "train recipes over several seeds and compare them in one table",
    "push": "share a trained network on the Hugging Face hub, or write what would be shared",
    "recipes": "list the recipes that train takes by name, or print one",
}
FIRST_STEPS = """first steps:
  pointmix train                        a small network on handwritten digits, about a minute
  pointmix train image --data.root DIR  your images, in one folder for each class
  pointmix predict --run RUN cat.jpg    its class; RUN is the folder that the training names
  pointmix explain cat.jpg --run RUN --out clusters.png
  pointmix recipes cifar                what was trained on CIFAR, with its cost and result
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code.

    Args:
        argv: words and flags after `pointmix`; None: those of this process.
    """
    words = sys.argv[1:] if argv is None else argv
    prog = "python -m pointmix" if argv is None and Path(sys.argv[0]).name == "__main__.py" else "pointmix"
    word = words[0] if words else "--help"
    if word in COMMANDS:
        code: int = importlib.import_module(f"pointmix.commands.{word}").main(words[1:], prog=f"{prog} {word}")
        return code
    return exit_code(lambda: print(about(word, prog)))


def about(word: str, prog: str) -> str:
    """What `pointmix --help` and `pointmix --version` print.

    Raises:
        ValueError: the word is neither, and no command.
    """
    if word in ("-h", "--help"):
        return usage(prog)
    if word in ("-V", "--version"):
        return f"pointmix {version()}"
    raise ValueError(f"{prog} has no command {word!r}, expected one of {', '.join(COMMANDS)}")


def usage(prog: str) -> str:
    """What `pointmix --help` prints."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {word:{width}}  {what}" for word, what in COMMANDS.items())
    return f"""usage: {prog} COMMAND [flags]

Networks that cluster: images, partial images and point clouds as sets of points.

commands, each with a --help of its own:
{listed}

{FIRST_STEPS}
flags: --help, --version"""
