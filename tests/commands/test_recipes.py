"""Recipes by name: `pointmix recipes`, and where a name leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointmix.commands.recipes import first_sentence, main
from pointmix.engine.shipped import find, find_all, folder, head, names

ROOT = Path(__file__).parents[2]


def test_all_recipes_are_listed_with_cost_and_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    found = [name for name in names() if f"│ {name} " in out]
    files = {str(file.relative_to(ROOT / "configs").with_suffix("")) for file in (ROOT / "configs").rglob("*.yaml")}
    assert set(found) == set(names()) == files and len(files) > 50
    assert out.count("Cost: ") == out.count("Result: ") == len(files)
    assert out.index("│ segment/") < out.index("│ ablations/")


def test_text_chooses_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["NUCLEI"]) == 0
    out = capsys.readouterr().out
    assert "detect/nuclei │ detect │ instances │ Nuclei of cells" in out and out.count("Cost: ") == 1


def test_a_name_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image/coc_digits"]) == 0
    assert capsys.readouterr().out == (ROOT / "configs/image/coc_digits.yaml").read_text()


def test_unknown_text_lists_near_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["imgae/coc_digits"]) == 2
    assert "error: no recipe mentions 'imgae/coc_digits', did you mean image/coc_digits" in capsys.readouterr().err


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("image/coc_digits") == folder() / "image/coc_digits.yaml"
    Path("image").mkdir()
    Path("image/coc_digits").write_text("epochs: 1\n")
    assert find("image/coc_digits") == Path("image/coc_digits") and head(find("image/coc_digits")) is None
    with pytest.raises(FileNotFoundError, match="no recipe of that name; pointmix recipes lists them"):
        find("zzz")


def test_patterns_of_names() -> None:
    assert [file.stem for file in find_all("ablations/curvature_*")] == ["curvature_0.1", "curvature_1", "curvature_10"]
    assert all(file.parent.name == "ablations" for file in find_all("ablations/*"))
    with pytest.raises(FileNotFoundError, match="nothing/"):
        find_all("nothing/*")


def test_every_head_names_a_command() -> None:
    for name in names():
        about = head(find(name))
        assert about is not None and (about.kind or "pointmix ablate" in about.command) and about.about, name
        whole = not name.startswith("ablations/")
        assert not whole or about.kind == name.split("/")[0]


def test_first_sentence() -> None:
    assert first_sentence("0.5 by one. Two.") == "0.5 by one."
    assert first_sentence("One") == "One"
