"""Parts of a network that are not trained."""

from __future__ import annotations

import difflib
import itertools
import types
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from pointmix.data.splits import shortened
from pointmix.engine.layers import is_in_classifier, layer_numbers


@dataclass(frozen=True)
class Frozen:
    """What is frozen: the largest modules that are frozen as a whole; how many tensors of parameters, and values."""

    parts: list[str]
    tensors: int
    values: int

    def __str__(self) -> str:
        return f"{self.values:,} of them frozen in {self.tensors:,} tensors ({shortened(self.parts)})"


def freeze(model: nn.Module, parts: Sequence[str]) -> Frozen:
    """Take gradients from these parts of a network and keep their running statistics, in place.

    Norms with running statistics of frozen parts stay in evaluation mode, whatever mode the network is in.

    Args:
        parts: each "backbone" (all but the head), "stem", the number of stages from the first on (with the stem), or
            the name of a module or parameter, in which * stands for anything.

    Raises:
        ValueError: a part is not in the network, or nothing would be trained; one line.
    """
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    frozen: set[str] = set()
    for part in parts:
        is_of = _part(model, part)
        if not (found := {name for name in names if is_of(name)}):
            raise ValueError(f"model.freeze {part!r} is no part of the network; {_near(model, part)}")
        frozen |= found
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen = {name: p for name, p in trained.items() if name in frozen}
    if len(chosen) == len(trained):
        raise ValueError(f"model.freeze {', '.join(parts)} freezes all of the network, so nothing would be trained")
    for parameter in chosen.values():
        parameter.requires_grad_(False)
    for name, module in model.named_modules():
        if f"{name}.running_mean" in frozen:
            module.eval()
            module.train = types.MethodType(_stay, module)  # a copy of the network binds its own
    return Frozen(_named(chosen, trained), len(chosen), sum(p.numel() for p in chosen.values()))


def _stay(self: nn.Module, mode: bool = True) -> nn.Module:
    """`train` of a frozen norm."""
    return self


def _part(model: nn.Module, part: str) -> Callable[[str], bool]:
    """Whether a name is of a part."""
    if part == "backbone":
        return lambda name: not is_in_classifier(model, name)
    if part == "stem" or part.isdecimal():
        layers = layer_numbers(model, coarse=True)
        if layers is None:
            raise ValueError(f"model.freeze {part!r}: the network does not name its stages; {_near(model, part)}")
        stages = max(layers.values()) - 1  # the first layer is the stem, the last the head
        if part != "stem" and not 1 <= int(part) <= stages:
            raise ValueError(f"model.freeze {part!r}: expected a number of stages from 1 to {stages}")
        last = 0 if part == "stem" else int(part)
        return lambda name: layers[name] <= last
    return lambda name: name == part or name.startswith(f"{part}.") or fnmatchcase(name, part)


def _near(model: nn.Module, part: str) -> str:
    """What was perhaps meant."""
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters()) if name]
    if near := difflib.get_close_matches(part, ["backbone", "stem", *names], n=3):
        return f"did you mean {' or '.join(near)}?"
    children = [name for name, _ in model.named_children()]
    return f"expected backbone, stem, a number of stages, or a name below {', '.join(children)}"


def _named(chosen: Collection[str], every: Collection[str]) -> list[str]:
    """The largest modules whose parameters are all chosen."""
    counts = [Counter(start for name in names for start in _starts(name)) for names in (chosen, every)]
    whole = (next(start for start in _starts(name) if counts[0][start] == counts[1][start]) for name in chosen)
    return list(dict.fromkeys(whole))


def _starts(name: str) -> list[str]:
    """a, a.b and a.b.c of a.b.c."""
    return list(itertools.accumulate(name.split("."), "{}.{}".format))
