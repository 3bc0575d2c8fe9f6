"""Tables of detections by class and over all, and the rows of both as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pointmix.tasks.protocols import Metrics
from pointmix.utils.atomic import write_text
from pointmix.utils.messages import one_line

COLUMNS = {  # of AP over all classes
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "small", "ap_medium": "medium", "ap_large": "large",
    "ar": "AR",
}  # fmt: skip
PER_CLASS = {"ap_per_class": "AP", "ap50_per_class": "AP50"}


def ap_table(results: Sequence[Metrics], title: str) -> Table:
    """AP and AR in percent, a row for the boxes and one for the masks of each network.

    Args:
        results: each with "name" and metrics, see `pointmix.tasks.detect.ap.average_precision`.
    """
    table = Table(title=Text(f"{title} (%)"), title_justify="left")
    for column in ("", *COLUMNS.values()):
        table.add_column(column, justify="right" if column else "left")
    for result in results:
        for kind in kinds(result):
            name = f"{result['name']}, {kind}" if len(results) > 1 else kind
            table.add_row(Text(name), *(_percent(result[f"{kind}_{key}"]) for key in COLUMNS))
    return table


def class_table(test: Metrics, classes: Sequence[str], *, title: str = "test data by class") -> Table:
    """Objects and AP in percent of each class.

    Args:
        test: see `pointmix.tasks.detect.metrics.DetectionMetric`.
        classes: names.
    """
    if test["absent"]:
        title += f", {test['absent']} of {len(classes)} classes have no object and do not count"
    table = Table(title=Text(f"{title} (AP in %)"), title_justify="left")
    columns = [f"{kind} {label}" for kind in kinds(test) for label in PER_CLASS.values()]
    for column in ("class", "objects", *columns):
        table.add_column(column, justify="left" if column == "class" else "right")
    for i, name in enumerate(classes):
        values = [test[f"{kind}_{key}"][i] for kind in kinds(test) for key in PER_CLASS]
        table.add_row(Text(one_line(name)), f"{test['objects'][i]:,}", *map(_percent, values))
    return table


def write_csv(results: Sequence[Metrics], path: Path) -> None:
    """Write a row for all classes together, named "all classes", and one for each, of each network."""
    columns = ["name", "class", "category_id", "objects"]
    masks = any("mask" in kinds(result) for result in results)
    columns += [f"{kind}_{key}" for kind in ["box"] + ["mask"] * masks for key in COLUMNS]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerow(result | {"class": "all classes", "objects": sum(result["objects"])})
        for i, name in enumerate(result["classes"]):
            row = {"name": result["name"], "class": name, "category_id": result["category_ids"][i]}
            row |= {f"{kind}_{key[:-10]}": result[f"{kind}_{key}"][i] for kind in kinds(result) for key in PER_CLASS}
            writer.writerow(row | {"objects": result["objects"][i]})
    write_text(path, text.getvalue())


def kinds(test: Metrics) -> list[str]:
    """What was compared: boxes, and masks if network and data have them."""
    return ["box", "mask"] if "mask_ap" in test else ["box"]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
