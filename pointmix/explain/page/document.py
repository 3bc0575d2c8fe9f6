"""One self-contained HTML file: the template with its style, its scripts and the content as JSON."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

from pointmix.utils.atomic import write_text
from pointmix.utils.json_values import Json

MAX_BYTES = 3_000_000
# in this order in one module: later ones use the names of earlier ones
SCRIPTS = "arrays state grid lattice cloud paint panels picture readout pointer controls".split()


def write_page(path: str | Path, content: dict[str, Json], *, max_bytes: int = MAX_BYTES) -> None:
    """Write the page that shows `content`; it loads nothing from elsewhere.

    Args:
        path: the .html file, overwritten if it exists.
        content: of `view.to_json`.
        max_bytes: of the file.

    Raises:
        ValueError: if the page would be larger, or a number is not finite.
        OSError: if it cannot be written.
    """
    text = page(content)
    size = len(text.encode())
    if size > max_bytes:
        raise ValueError(
            f"cannot write {path}: the page would have {size / 1e6:.2f} MB, expected at most {max_bytes / 1e6:.2f} MB; "
            "show fewer points, blocks, heads or epochs"
        )
    write_text(path, text)


def page(content: dict[str, Json]) -> str:
    """The page as text."""
    files = resources.files(__package__)
    parts = {
        "style": files.joinpath("page.css").read_text(encoding="utf-8"),
        "script": "\n".join(files.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
        # "</script>" or "<!--" in a name would end the element
        "content": json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    template = files.joinpath("template.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
