from __future__ import annotations

from pathlib import Path

import pytest

from pointmix.utils.yaml_check import check_yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_projects_own_configurations_pass():
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert files
    for file in files:
        check_yaml(file.read_text(encoding="utf-8"), file.name)


def test_aliases_count_as_what_they_stand_for(monkeypatch):
    monkeypatch.setenv("POINTMIX_MAX_YAML_VALUES", "20")
    text = "a: &a [1, 2, 3]\nb: [*a, *a]\n"  # 1 + 1 + 4 + 1 + 1 + 2 * 4 values
    check_yaml(text, "x.yaml")
    with pytest.raises(ValueError, match="x.yaml has 24 values, more than the limit of 20; .*POINTMIX_MAX_YAML_VALUES"):
        check_yaml(text.replace("[*a", "[*a, *a, *a"), "x.yaml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 51 + "]" * 51, "nested more than 50 levels deep"),
        ("a: &a [*a]", "the alias a contains itself"),
        ("x: {class_path: os.system}", "names a class under class_path, expected values only"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^x.yaml.*{message}"):
        check_yaml(text, "x.yaml")


def test_other_mistakes_are_left_to_the_reader():
    for text in ("", "a: [1", "\t", "a: *b", "[" * 50 + "]" * 50):
        check_yaml(text, "x.yaml")
