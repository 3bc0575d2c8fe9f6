from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pointmix.io import read_cloud
from pointmix.io.formats.las import read_las

laspy = pytest.importorskip("laspy", reason="laspy is not installed")

FAR = np.array([650000.0, 6860000.0, 100.0])
XYZ = np.random.default_rng(0).integers(0, 10000, (50, 3)) / 100 + FAR


def write(path: Path, point_format: int = 3) -> Path:
    if path.suffix == ".laz":
        pytest.importorskip("lazrs", reason="lazrs is not installed")
    header = laspy.LasHeader(point_format=point_format, version="1.4" if point_format > 5 else "1.2")
    header.scales, header.offsets = [0.01] * 3, FAR
    header.add_extra_dim(laspy.ExtraBytesParams("planarity", "f4"))
    las = laspy.LasData(header)
    las.x, las.y, las.z = XYZ.T
    las.intensity, las.classification = np.arange(50) * 1000, np.arange(50) % 7
    las.return_number, las.number_of_returns = np.arange(50) % 3 + 1, np.full(50, 3)
    las.planarity = np.arange(50) / 50
    if point_format in (3, 7):
        las.red, las.green, las.blue = np.arange(50) * 256, np.zeros(50, int), np.full(50, 65535)
    las.write(path)
    return path


@pytest.mark.parametrize("point_format", [1, 3, 6, 7])
@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_points_and_their_dimensions(tmp_path, suffix, point_format):
    found = read_las(write(tmp_path / f"a{suffix}", point_format))
    assert found["xyz"].dtype == np.float64 and np.abs(found["xyz"] - XYZ).max() < 1e-6
    assert found["intensity"].dtype == np.uint16 and found["intensity"].tolist() == list(range(0, 50000, 1000))
    assert found["classification"].tolist() == [i % 7 for i in range(50)]
    assert found["return_number"].tolist() == [i % 3 + 1 for i in range(50)]
    assert found["number_of_returns"].tolist() == [3] * 50 and found["planarity"].dtype == np.float32
    assert ("rgb" in found) == (point_format in (3, 7)) and "X" not in found and "red" not in found
    if "rgb" in found:
        assert found["rgb"][1].tolist() == [256, 0, 65535]


@pytest.mark.filterwarnings("ignore:not read from .las files")
def test_positions_keep_double_precision(tmp_path):
    pos, feat = read_cloud(write(tmp_path / "a.las"))
    assert np.abs(pos.numpy() - XYZ).max() < 1e-6 and feat.shape == (50, 3)  # colors


@pytest.mark.parametrize("scale", [0.01, 0.001, 0.0001])
def test_offsets_in_whole_numbers_leave_the_shape_to_the_last_bit(tmp_path, scale):
    """Also if the file near the origin has no offset but larger integers."""
    steps, found = np.random.default_rng(0).integers(0, 10_000_000, (500, 3)), []
    for offset, own in (((500_000, 4_500_000, 80), 0), ((0, 0, 0), 0), ((-7, 2, 0), 7)):
        header = laspy.LasHeader(point_format=0, version="1.2")
        header.scales, header.offsets = [scale] * 3, offset
        las = laspy.LasData(header)
        las.X, las.Y, las.Z = (steps + round(own / scale)).T
        las.write(tmp_path / "a.las")
        pos = read_las(tmp_path / "a.las")["xyz"]
        assert np.abs(pos - (steps * scale + offset + own)).max() < scale / 10_000
        found.append(pos - pos.min(0))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize("scale", [0.0, -0.01, np.nan, 1e300])
def test_scales_that_are_no_scales(tmp_path, scale):
    path = write(tmp_path / "a.las")
    content = bytearray(path.read_bytes())
    content[131:139] = np.float64(scale).tobytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="header has scales .* it is damaged"):
        read_cloud(path)


@pytest.mark.parametrize(
    "left, what", [(100, "too? small"), (300, "its header names 50 points of 38 bytes, 0 follow"), (-1, "cut off")]
)
def test_files_that_are_cut_off(tmp_path, left, what):
    path = write(tmp_path / "a.las")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=f"cannot read .*a.las: .*{what}"):
        read_cloud(path)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_the_size_is_checked_before_anything_is_read(tmp_path, suffix, monkeypatch):
    path = write(tmp_path / f"a{suffix}")
    monkeypatch.setenv("POINTMIX_MAX_ARRAY_BYTES", "1199")
    with pytest.raises(ValueError, match="the points .* has 1200 bytes, more than the limit of 1199"):
        read_cloud(path)


def test_a_header_of_too_many_records_is_refused(tmp_path):
    content = bytearray(write(tmp_path / "a.las").read_bytes())
    content[103] = 255
    (tmp_path / "a.las").write_bytes(content)
    with pytest.raises(ValueError, match="cut off or damaged: its header names 42[0-9]* records"):
        read_las(tmp_path / "a.las")


def test_too_many_chunks_are_refused(tmp_path):
    """lazrs would ask for their memory and end the process."""
    content = bytearray(write(tmp_path / "a.laz").read_bytes())
    start = int.from_bytes(content[96:100], "little")
    table = int.from_bytes(content[start : start + 8], "little")
    content[table + 7] = 127
    (tmp_path / "a.laz").write_bytes(content)
    with pytest.raises(ValueError, match="cut off or damaged: its points are in 213[0-9]* chunks"):
        read_las(tmp_path / "a.laz")


def test_damaged_bytes_of_a_laz_file_are_an_error_or_points(tmp_path):
    content = write(tmp_path / "a.laz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = np.frombuffer(content, np.uint8).copy()
        bad[rng.integers(0, len(bad), 8)] = rng.integers(0, 256, 8)
        (tmp_path / "b.laz").write_bytes(bad.tobytes()[: rng.integers(len(bad) // 2, len(bad) + 1)])
        try:
            assert read_las(tmp_path / "b.laz")["xyz"].shape[1] == 3
        except Exception:  # of laspy and lazrs, but no panic
            continue


@pytest.mark.parametrize("library, suffix", [("laspy", ".las"), ("lazrs", ".laz")])
def test_missing_libraries_are_named(tmp_path, library, suffix, monkeypatch):
    path = write(tmp_path / f"a{suffix}")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ModuleNotFoundError, match=f"a{suffix}: this kind of file needs {library}: pip install {library}"
    ):
        read_cloud(path)
