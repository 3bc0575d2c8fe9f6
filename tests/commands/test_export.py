"""What the command `pointmix export` writes beside the network."""

from __future__ import annotations

from pointmix.commands.export import shared


def test_the_file_holds_no_local_paths() -> None:
    data = {"root": "/home/anna/patients/scans", "source": "folder"}
    kept = shared({"task": "classify_images", "classes": ["a/b"], "data": data, "path": "/home/anna/run/x"})
    assert kept == {"task": "classify_images", "classes": ["a/b"], "data": {"root": "scans", "source": "folder"}}
