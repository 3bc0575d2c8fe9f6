"""Results of an evaluation as a table and as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pointmix.tasks.protocols import Score
from pointmix.utils.atomic import write_text


def result_table(results: list[dict[str, Any]], scores: Mapping[str, Score], unit: str, *, note: str = "") -> Table:
    """A row of scores, and of the loss if there is one, for each result.

    Args:
        results: see `Task.show_evaluation`.
        unit: what the samples are called.
        note: end of the title.
    """
    first, several = results[0], len(results) > 1
    count = f"{first[unit]} test {unit}"
    table = Table(title=Text((count if several else f"{first['name']} on {count}") + note))
    for column in (*([""] if several else []), *(score.label for score in scores.values())):
        table.add_column(column, justify="right")
    if "loss" in first:
        table.add_column("loss", justify="right")
    for result in results:
        row = [f"{score.text(result[key])}" for key, score in scores.items()]
        row += [f"{result['loss']:.4f}"] if "loss" in first else []
        table.add_row(*([Text(result["name"])] if several else []), *row)
    return table


def write_results(results: list[dict[str, Any]], path: str | Path) -> list[Path]:
    """Write results as JSON: one by itself, several as a list."""
    write_text(path, json.dumps(results[0] if len(results) == 1 else results, indent=1) + "\n")
    return [Path(path)]
