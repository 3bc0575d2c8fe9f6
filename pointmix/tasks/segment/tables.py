"""Tables of a segmentation by class and by category of objects."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pointmix.tasks.protocols import Metrics
from pointmix.utils.messages import one_line


def class_table(test: Metrics, classes: Sequence[str], *, title: str = "test data by class") -> Table:
    """Points, IoU and accuracy of each class, and the class it is confused with most often.

    Args:
        test: see `SegmentationMetric`.
        classes: names.
    """
    if test["absent"]:
        title += f", {test['absent']} of {len(classes)} classes do not occur and do not count"
    if test.get("unlabeled"):
        title += f"; {test['unlabeled']} samples have no label"
    table = Table(title=Text(title), title_justify="left")
    for column in ("class", "points", "IoU", "accuracy", "most often taken for"):
        table.add_column(column, justify="left" if column in ("class", "most often taken for") else "right")
    names = [one_line(name) for name in classes]
    for i, row in enumerate(test["confusion"]):
        wrong = [0 if j == i else n for j, n in enumerate(row)]
        most = max(range(len(row)), key=wrong.__getitem__)
        other = escape(f"{names[most]} ({100 * wrong[most] / sum(row):.1f} %)") if wrong[most] else ""
        table.add_row(escape(names[i]), f"{sum(row):,}", _percent(test["iou"][i]), _percent(test["acc"][i]), other)
    return table


def category_table(test: Metrics, *, title: str = "test data by category") -> Table:
    """Objects and part IoU of each category by both conventions, see `PartMetric`."""
    table = Table(title=Text(title), title_justify="left")
    for column in ("category", "objects", "mIoU", "mIoU, parts present"):
        table.add_column(column, justify="left" if column == "category" else "right")
    for name, (objects, iou, present) in test["per_category"].items():
        table.add_row(escape(one_line(name)), str(objects), _percent(iou), _percent(present))
    for name in ("instance", "class"):
        pair = (test[f"{name}_miou"], test[f"{name}_miou_present"])
        table.add_row(f"{name} mean", "", *map(_percent, pair), style="bold")
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
