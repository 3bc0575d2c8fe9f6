"""VOC's xml file of the objects of an image: read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pointmix.data.detect.annotations import Annotation, LeftOut
from pointmix.data.segment.sources.voc import CLASSES
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line


def read_voc(
    path: Path, labels: Mapping[str, int], left_out: LeftOut
) -> tuple[tuple[int, int], list[Annotation | None]]:
    """H, W of an image, and its objects in the order of the file; None for one that is left out.

    Objects without an area in the image are left out and counted, those of VOC's other classes are left out.

    Args:
        labels: of the classes by their names.

    Raises:
        ValueError: naming the file and what was expected.
    """
    tree = read_xml(path)
    if tree.tag != "annotation":
        raise ValueError(f"{path} holds {one_line(repr(tree.tag), 80)}, expected an annotation")
    height, width = (_number(tree, f"size/{side}", str(path)) for side in ("height", "width"))
    if min(height, width) < 1 or height != int(height) or width != int(width):
        raise ValueError(f"{path}: the size is {width:g} x {height:g}, expected whole numbers of pixels")
    size = int(height), int(width)
    found: list[Annotation | None] = []
    for number, entry in enumerate(tree.findall("object"), start=1):
        where = f"{path}: object {number}"
        name = (entry.findtext("name") or "").strip()
        if name not in labels and name not in CLASSES[1:]:
            raise ValueError(f"{where} is of class {one_line(name, 80)!r}, expected one of {', '.join(labels)}")
        x1, y1, x2, y2 = (_number(entry, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        box = x1 - 1, y1 - 1, x2, y2  # the first pixel is 1, and the last one belongs to the box
        one = Annotation(box, labels.get(name, -1), None, difficult)
        if name in labels and not one.has_area(size):
            left_out.add("objects without area in the image", where)
        found.append(one if name in labels and one.has_area(size) else None)
    return size, found


def read_xml(path: Path) -> Element:
    """The root of an xml file without a document type, whose entities could grow without limit.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no xml, is cut off or too large, or has a document type.
    """
    path = regular_file(path)
    check_limit("METADATA_BYTES", path.stat().st_size, str(path))
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> NoReturn:
        raise ValueError(f"{path} has a document type, expected plain elements")

    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is not XML, or is cut off: {one_line(error)}") from error
    return builder.close()


def _number(tree: Element, place: str, where: str) -> float:
    """A finite number in an element."""
    text = tree.findtext(place)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} has {place} {one_line(repr(text), 80)}, expected a finite number")
    return value
