from __future__ import annotations

import numpy as np
import pytest

from pointmix.io import read_columns


def test_text_keeps_map_coordinates_in_double_precision(tmp_path):
    (tmp_path / "a.txt").write_text("500000.123456 4500000.654321 12.5\n500000.123457 4500000.654322 12.75\n")
    pos = read_columns(tmp_path / "a.txt").pos
    assert pos.dtype == np.float64 and pos[1].tolist() == [500000.123457, 4500000.654322, 12.75]


@pytest.mark.parametrize(
    "columns, has", {4: ["intensity"], 6: ["rgb"], 7: ["rgb", "intensity"], 5: ["further columns"]}.items()
)
def test_columns_of_a_pts_file_with_the_number_of_points(tmp_path, columns, has):
    table = np.arange(2 * columns).reshape(2, columns)
    (tmp_path / "a.pts").write_text("2\n" + "\n".join(" ".join(map(str, row)) for row in table))
    features = read_columns(tmp_path / "a.pts").features
    assert list(features) == has
    if "intensity" in has:
        assert features["intensity"].tolist() == table[:, 3].tolist()
    if "rgb" in has:
        assert features["rgb"].tolist() == table[:, -3:].tolist()


def test_names_of_columns_without_a_header_are_given(tmp_path):
    (tmp_path / "a.txt").write_text("0 0 0 1 2 3 7 1\n1 1 1 4 5 6 8 0\n")
    found = read_columns(tmp_path / "a.txt", columns=("normal", "intensity", "label"), features=("intensity", "normal"))
    assert found.features["normal"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.features["intensity"].tolist() == [
        7,
        8,
    ]
    assert found.label.tolist() == [1, 0]


def test_a_comment_of_other_words_is_no_header(tmp_path):
    (tmp_path / "a.xyz").write_text("# my three words\n1 2 3\n# x y z\n4 5 6\n")
    assert read_columns(tmp_path / "a.xyz").pos.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_table_is_no_larger_than_allowed(tmp_path, monkeypatch):
    (tmp_path / "a.xyz").write_text("1 2 3\n" * 50)
    monkeypatch.setenv("POINTMIX_MAX_ARRAY_BYTES", "299")
    with pytest.raises(ValueError, match="the text has 300 bytes, more than the limit of 299"):
        read_columns(tmp_path / "a.xyz")
