"""Tables of an evaluation by class and over shares of points, and the curve over shares."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pointmix.tasks.protocols import Metrics, Score
from pointmix.utils.atomic import write_text
from pointmix.utils.messages import one_line


def class_table(test: Metrics, classes: Sequence[str], unit: str, *, title: str = "test data by class") -> Table:
    """Accuracy of each class, and the class it is confused with most often.

    Args:
        test: holds "per_class" and "confusion", see `Confusion`.
        unit: what the samples are called.
    """
    table = Table(title=Text(title), title_justify="left")
    for column in ("class", unit, "right", "accuracy", "most often taken for"):
        table.add_column(column, justify="left" if column in ("class", "most often taken for") else "right")
    classes = [one_line(name) for name in classes]
    for i, (name, share, row) in enumerate(zip(classes, test["per_class"], test["confusion"], strict=True)):
        wrong = [0 if j == i else n for j, n in enumerate(row)]
        most = max(range(len(row)), key=wrong.__getitem__)
        other = escape(f"{classes[most]} ({wrong[most]})") if wrong[most] else ""
        table.add_row(escape(name), str(sum(row)), str(row[i]), "" if share is None else f"{100 * share:.1f} %", other)
    return table


def curve_table(results: list[dict[str, Any]], scores: Mapping[str, Score], *, title: str) -> Table:
    """A row for each network and score, a column for each share of points kept ("keep")."""
    names, kept = list(dict.fromkeys(r["name"] for r in results)), sorted({r["keep"] for r in results})[::-1]
    table = Table("points kept", title=title)
    for share in kept:
        table.add_column(f"{share:.4g}", justify="right")
    for key, score in scores.items():
        values = {(r["name"], r["keep"]): score.text(r[key]) for r in results}
        for name in names:
            table.add_row(Text(f"{name}, {score.label}"), *(values[name, share] for share in kept))
    return table


def write_curve(
    results: list[dict[str, Any]],
    out: Path,
    *,
    score: tuple[str, Score],
    columns: Sequence[str],
    title: str,
    with_chance: bool = True,
) -> list[Path]:
    """The curve of a score over the shares of points as PNG, CSV (these columns) and JSON, named alike.

    Args:
        with_chance: whether to draw the accuracy of guessing, from "num_classes" of the results.
    """
    from pointmix.explain.keep_curve import draw_keep_curve

    key, shown = score
    png, table, full = (out.with_suffix(end) for end in (".png", ".csv", ".json"))
    curves: dict[str, list[tuple[float, float]]] = {}
    for r in results:
        curves.setdefault(r["name"], []).append((r["keep"], r[key]))
    chance = 1 / results[0]["num_classes"] if with_chance else None
    draw_keep_curve(png, curves, title=title, score=shown.label, chance=chance)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_text(table, text.getvalue())
    write_text(full, json.dumps(results, indent=1) + "\n")
    return [png, table, full]
