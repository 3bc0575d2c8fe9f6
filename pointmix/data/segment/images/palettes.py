"""Palette files: the colors and names of classes, for masks that are saved in color."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pointmix.data.paths import read_lines

Color = tuple[int, int, int]  # red, green, blue, 0 to 255


class Palette(NamedTuple):
    """Colors of masks.

    Args:
        names: of the classes, in the order of their lines.
        colors: of each class.
        ignored: colors without a class.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: tuple[Color, ...]


def read_palette(path: str | Path) -> Palette:
    """A palette file, a line a class: `R G B name` or `name,R,G,B`, numbers from 0 to 255, separated by spaces, tabs
    or commas. A color without a name is ignored, as are lines that begin with # and a first line `name,r,g,b`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the line, if it is in another form, or has a color or a name for the second time; if there is
            no class.
    """
    named: dict[str, Color] = {}
    ignored: list[Color] = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith("#") or (number == 1 and line.lower().replace(" ", "") == "name,r,g,b"):
            continue
        where = f"palette file {path}, line {number}"
        name, color = _parsed(line, where)
        if color in named.values() or color in ignored:
            raise ValueError(f"{where}: color {color} occurs twice, expected one class a color")
        if name in named:
            raise ValueError(f"{where}: class {name!r} occurs twice, expected one color a class")
        if name:
            named[name] = color
        else:
            ignored.append(color)
    if not named:
        raise ValueError(f"palette file {path} names no class; expected lines such as `128 64 128 road`")
    return Palette(tuple(named), tuple(named.values()), tuple(ignored))


def _parsed(line: str, where: str) -> tuple[str, Color]:
    words = [word for word in line.replace(",", " ").split() if word]
    for values, rest in ((words[:3], words[3:]), (words[-3:], words[:-3])):
        if len(values) == 3 and all(word.isascii() and word.isdigit() and int(word) < 256 for word in values):
            red, green, blue = map(int, values)
            return " ".join(rest), (red, green, blue)
    raise ValueError(f"{where}: {line[:60]!r}; expected `R G B name` or `name,R,G,B` with numbers from 0 to 255")
