"""What the command `pointmix export` writes beside the network."""

from __future__ import annotations

import pytest

from pointmix.commands.export import blank_input, shared
from pointmix.tasks.base import get_task


def test_detectors_are_refused() -> None:
    expected = "coc_tiny for detect cannot be exported: expected a classifier, or a segmenter of images"
    with pytest.raises(ValueError, match=expected):
        blank_input(get_task("detect"), {"name": "coc_tiny"}, points=False)


def test_the_file_holds_no_local_paths() -> None:
    data = {"root": "/home/anna/patients/scans", "source": "folder"}
    kept = shared({"task": "classify_images", "classes": ["a/b"], "data": data, "path": "/home/anna/run/x"})
    assert kept == {"task": "classify_images", "classes": ["a/b"], "data": {"root": "scans", "source": "folder"}}
