from __future__ import annotations

from pathlib import Path

import pytest

from pointmix.utils.local_paths import PathHider


def hidden(value, **known):
    documents = [known, {"text": value}]
    return PathHider(documents, keys=("root", "output_dir", "init")).hide({"text": value})["text"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/patients/ct", "ct"),
        ("/srv/my patients/ct 3", "ct 3"),
        ("C:\\Users\\Jane\\scans", "scans"),
        ("\\\\server\\share\\scans", "scans"),
        ("../../jane/scans", "scans"),
        ("~/scans/", "scans"),
        ("file:///srv/patients/ct", "ct"),
        ("/home/jane", "DIR"),
        ("/Users/jane/", "DIR"),
        (str(Path.home()), "DIR"),
        ("/", "DIR"),
        ("/srv/ct/a.png: truncated, see /var/log/x.txt", "a.png: truncated, see x.txt"),
        ("C:\\Users\\Jane\\a.png: truncated", "a.png: truncated"),
        ("from file:///srv/ct/a.png", "from a.png"),
        ("in /home/jane", "in DIR"),
        (f"{Path.cwd()}/a/b.png is damaged", "b.png is damaged"),
    ],
)
def test_a_path_becomes_its_last_part(text, expected):
    assert hidden(text) == expected


@pytest.mark.parametrize(
    "text", ["", "and/or", "1/2 and 3/4", "https://example.org/a/b", "timm/resnet18.a1_in1k", "a: b", "image/coc_tiny"]
)
def test_other_texts_stay(text):
    assert hidden(text) == text


def test_a_known_path_is_found_in_other_texts():
    root = "/home/jane doe/my patients/ct"
    assert hidden(f"{root}/one/a.png: truncated", root=root) == "a.png: truncated"
    assert hidden("/home/jane doe/other/a.png: truncated", root=root) == "a.png: truncated"
    assert hidden("see runs/secret/best", output_dir="runs/secret") == "see best"
    assert hidden("my_runs/secrets", output_dir="runs/secret") == "my_runs/secrets"


def test_settings_of_paths_and_names_of_classes():
    document = {
        "data": {"root": "data/jane", "mask_root": "masks/jane2", "classes": ["/m/01g317", "and/or"], "limit": 3},
        "model": {"init": "hf-hub:me/letters"},
        "skipped": [["/srv/jane/a.png", "no image"]],
        "files": {"data/jane/a.png": 1.0, "/m/01g317": None},
    }
    assert PathHider([document], keys=("root", "init")).hide(document) == {
        "data": {"root": "jane", "mask_root": "jane2", "classes": ["/m/01g317", "and/or"], "limit": 3},
        "model": {"init": "hf-hub:me/letters"},
        "skipped": [["a.png", "no image"]],
        "files": {"a.png": 1.0, "/m/01g317": None},
    }
