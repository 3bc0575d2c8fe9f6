"""The page as a file: one, whole, within its limit, with the content it was given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pointmix.explain.page.document import write_page

HOSTILE = "</script><!--<script>{{style}} \ud800 ä.jpg"


def test_the_content_comes_back_and_closes_no_element(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", {"version": 1, "title": HOSTILE})
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == text.count("<script") == 2
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text)
    assert json.loads(found[1])["title"] == HOSTILE


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", {})
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|\bimport\b|\bfetch\(|@import|src=", text)
    assert "innerHTML" not in text
    assert len(text) < 60_000, "without content the page is small"


@pytest.mark.parametrize(
    "content, limit, message", [({"title": "a" * 999}, 900, "MB"), ({"low": float("nan")}, 10**6, "JSON")]
)
def test_a_page_that_is_refused_leaves_the_previous_one(
    tmp_path: Path, content: dict, limit: int, message: str
) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        write_page(path, content, max_bytes=limit)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
