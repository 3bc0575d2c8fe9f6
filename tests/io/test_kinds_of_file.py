"""Every reader with files that it reads, and files that it refuses with their message.

`python -m tests.io.test_kinds_of_file` prints both as a table in Markdown.
"""

from __future__ import annotations

import re
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from pointmix.io import read_cloud, read_columns
from tests.io.writers import (
    COLORS,
    F4,
    FACE,
    HUGE,
    NAN,
    OBJ_BODY,
    OFF_BODY,
    PACKED,
    PTS,
    RECORDS,
    RGB,
    SQUARE,
    STL,
    STL_TEXT,
    WITH_COLOR,
    XYZ,
    Write,
    cut,
    hdf5,
    las,
    laz,
    lines,
    lzf,
    npy,
    npz,
    pcd,
    ply,
    pt,
    rows,
)

# suffix, what is in it, how it is written, features to read, shape of these (N, C)
READ: list[tuple[str, str, Write, tuple[str, ...], tuple[int, int]]] = [
    ("ply", "binary, 8-bit colors", ply("binary_little_endian", WITH_COLOR, *COLORS), ("rgb",), (50, 3)),
    ("ply", "text", ply("ascii", "\n".join(rows(XYZ)).encode()), (), (50, 0)),
    (
        "ply",
        "scalar_Intensity of CloudCompare, text",
        ply("ascii", "\n".join(rows(np.c_[XYZ, XYZ[:, 0]])).encode(), "float scalar_Intensity"),
        ("intensity",),
        (50, 1),
    ),
    ("ply", "a mesh", ply("ascii", f"{SQUARE}4 0 1 2 3".encode(), points=4, more=FACE), ("normal",), (10_000, 3)),
    ("las", "map coordinates, 8-bit colors in 16 bits", las, ("rgb", "intensity"), (50, 4)),
    ("laz", "compressed", laz, ("return_number",), (50, 1)),
    ("pcd", "text", pcd("ascii", "\n".join(rows(XYZ)).encode()), (), (50, 0)),
    (
        "pcd",
        "binary, packed colors",
        pcd("binary", np.c_[XYZ, PACKED].astype("f4").tobytes(), fields="x y z rgb"),
        ("rgb",),
        (50, 3),
    ),
    ("pcd", "binary_compressed", pcd("binary_compressed", lzf(XYZ.T.tobytes())), (), (50, 0)),
    ("pcd", "double precision", pcd("binary", XYZ.astype("f8").tobytes(), size="8"), (), (50, 0)),
    ("off", "a mesh", lines("OFF", OFF_BODY), ("normal",), (10_000, 3)),
    ("off", "counts in the first line (ModelNet)", lines("OFF" + OFF_BODY), (), (10_000, 0)),
    ("obj", "a mesh, faces of four vertices", lines("mtllib none.mtl", OBJ_BODY), (), (10_000, 0)),
    ("stl", "binary", lambda path: path.write_bytes(STL), (), (10_000, 0)),
    ("stl", "text", lines(STL_TEXT + "endsolid a"), ("normal",), (10_000, 3)),
    ("xyz", "x y z", lines(*rows(XYZ)), (), (50, 0)),
    ("xyz", "tabs", lines(*rows(XYZ, "\t")), (), (50, 0)),
    ("xyz", "a first line with the number of points", lines("50", *rows(XYZ)), (), (50, 0)),
    ("txt", "comments, empty lines, CRLF", lines("# made by hand", "", *rows(XYZ), "// end", end="\r\n"), (), (50, 0)),
    (
        "txt",
        "a comment with the names of columns (CloudCompare)",
        lines("//X Y Z R G B Scalar_field", *rows(np.c_[XYZ, RGB, XYZ[:, 0]])),
        ("rgb", "field"),
        (50, 4),
    ),
    ("txt", "semicolons", lines(*rows(XYZ, ";")), (), (50, 0)),
    (
        "csv",
        "a header, columns in any order",
        lines("Intensity,Z,Y,X", *rows(np.c_[XYZ, XYZ[:, 0]], ",")),
        ("intensity",),
        (50, 1),
    ),
    ("csv", "a byte order mark, quoted names", lines('\ufeff"x","y","z"', *rows(XYZ, ", ")), (), (50, 0)),
    ("csv", "further columns without names", lines(*rows(np.c_[XYZ, RGB], ",")), (), (50, 0)),
    ("pts", "Leica: count, x y z intensity r g b", lines(*PTS), ("rgb", "intensity"), (50, 4)),
    ("pts", "x y z", lines(*rows(XYZ)), (), (50, 0)),
    ("npy", "(N, 3)", npy(XYZ), (), (50, 0)),
    ("npy", "records with fields x, y, z", npy(RECORDS), ("intensity",), (50, 1)),
    ("npz", "pos, rgb and normals", npz(pos=XYZ, rgb=RGB, normals=XYZ), ("normal", "rgb"), (50, 6)),
    ("h5", "one cloud, intensity", hdf5(xyz=XYZ, intensity=XYZ[:, 0]), ("intensity",), (50, 1)),
    (
        "h5",
        "sets of any size with ptr",
        hdf5(pos=np.r_[XYZ, XYZ], rgb=np.r_[RGB, RGB], ptr=np.array([0, 50, 100])),
        ("rgb",),
        (50, 3),
    ),
    ("h5", "sets of any size with lengths", hdf5(data=np.r_[XYZ, XYZ], lengths=np.array([50, 50])), (), (50, 0)),
    ("h5", "a data set a cloud", hdf5(cloud_0=XYZ, cloud_1=XYZ[:9]), (), (50, 0)),
    ("h5", "a group a cloud", hdf5(**{"chair/xyz": XYZ, "chair/rgb": RGB, "desk/xyz": XYZ}), ("rgb",), (50, 3)),
    ("pt", "a tensor", pt(torch.from_numpy(XYZ)), (), (50, 0)),
    ("pt", "a dict of tensors", pt({"pos": torch.from_numpy(XYZ), "x": torch.ones(50, 2), "y": 3}), ("x",), (50, 2)),
    ("pt", "a list of dicts, a cloud each", pt([{"pos": torch.from_numpy(XYZ), "label": 1}]), (), (50, 0)),
    ("pt", "a list of clouds, bfloat16", pt([torch.ones(50, 3, dtype=torch.bfloat16)]), (), (50, 0)),
]

# suffix, what is wrong, how it is written, the message
REFUSED: list[tuple[str, str, Write, str]] = [
    ("ply", "empty", lines(), "not a .ply file: it should begin with the line 'ply'"),
    ("ply", "cut off", cut(ply("binary_little_endian", F4), 0.8), r"element 'vertex': row 38: early end-of-file"),
    (
        "ply",
        "a huge number of points",
        ply("binary_little_endian", F4, points=10**12),
        "the file is cut off: its header names 3000000000000 values",
    ),
    (
        "ply",
        "a face with a vertex that is not there",
        ply("ascii", f"{SQUARE}3 0 1 9".encode(), points=4, more=FACE),
        "face 0 names vertices [0, 1, 9], the mesh has 4",
    ),
    (
        "ply",
        "NaN",
        ply("binary_little_endian", NAN.tobytes()),
        "positions hold NaN or infinite values at 1 of 50 points, the first at 7; nan drop leaves them out",
    ),
    ("las", "cut off", cut(las, 0.7), "the file is cut off: its header names 50 points of 26 bytes"),
    ("las", "another kind of file", lines("hello world " * 40), "it does not begin with LASF"),
    ("las", "no point", lambda path: las(path, 0), "expected at least one point"),
    ("pcd", "empty", lines(), "the header is cut off: it has no line DATA"),
    (
        "pcd",
        "another kind of file",
        lines("1 2 3"),
        "expected the header of a .pcd file, ending with a line DATA, got '1 2 3'",
    ),
    ("pcd", "binary, cut off", cut(pcd("binary", F4), 0.8), "the file is cut off: its header names 50 points"),
    ("pcd", "compressed, cut off", cut(pcd("binary_compressed", lzf(F4)), 0.8), "the file is cut off"),
    (
        "pcd",
        "compressed, damaged",
        pcd("binary_compressed", struct.pack("<II", 4, 600) + b"\xff" * 4),
        "its compressed points are damaged",
    ),
    (
        "pcd",
        "compressed to another size",
        pcd("binary_compressed", lzf(F4, size=9)),
        "50 points take 600 bytes, it holds 9",
    ),
    (
        "pcd",
        "a huge number of points",
        pcd("binary", F4, points=10**12),
        "the file is cut off: its header names 1000000000000 points",
    ),
    (
        "pcd",
        "a huge number of compressed points",
        pcd("binary_compressed", lzf(F4), points=10**12),
        "the points (1000000000000,) has 12000000000000 bytes, more than the limit",
    ),
    (
        "pcd",
        "no x, y, z",
        pcd("ascii", b"1 2 3\n", points=1, fields="a b c"),
        "expected fields x, y and z, found a, b, c",
    ),
    ("pcd", "an unknown type", pcd("binary", F4, kind="Q"), "a field has the type Q4"),
    (
        "pcd",
        "NaN of an organized cloud",
        pcd("binary", NAN.tobytes()),
        "positions hold NaN or infinite values at 1 of 50 points, the first at 7",
    ),
    ("off", "another kind of file", lines("hello"), "it does not begin with OFF"),
    ("off", "cut off", lines("OFF", "90 90 0", SQUARE), "it is cut off: 90 vertices and 90 faces in 37 bytes"),
    ("off", "no faces", lines("OFF", "4 0 0", SQUARE), "it has no faces, expected a mesh"),
    ("off", "no area", lines("OFF", "3 1 0", "0 0 0\n1 0 0\n2 0 0", "3 0 1 2"), "its 1 faces have no area"),
    ("obj", "empty", lines(), "it has no faces, expected a mesh"),
    (
        "obj",
        "a face with a vertex that is not there",
        lines("v 0 0 0", "v 1 0 0", "v 1 1 0", "f 1 2 9"),
        "it is damaged",
    ),
    (
        "stl",
        "cut off",
        lambda path: path.write_bytes(STL[:-10]),
        "it is neither text that begins with solid, nor 2 faces of 50 bytes after 84 bytes",
    ),
    ("stl", "text, cut off", lines(STL_TEXT), "it is cut off: it has no line endsolid"),
    ("xyz", "empty", lines(), "it has no point"),
    ("xyz", "comments only", lines("# x y z"), "it has no point"),
    (
        "xyz",
        "binary",
        lambda path: path.write_bytes(F4 + b"\0\n"),
        "it is not text, expected a line of numbers a point",
    ),
    ("xyz", "two columns", lines("1 2", "3 4"), "its lines have 2 values, expected x, y, z and more"),
    ("xyz", "another number of points than it says", lines("9", *rows(XYZ)), "its first line says 9 points, 50 follow"),
    (
        "txt",
        "lines of different lengths",
        lines("1 2 3", "1 2 3", "1 2 3 4"),
        "point 2 has 4 values, the points before 3",
    ),
    ("txt", "a word", lines("1 2 3", "1 two 3"), "point 1 has 'two', which is not a number, in column 2"),
    ("txt", "decimal commas", lines("1,5 2,5 3,5"), "its numbers have decimal commas, expected points"),
    ("txt", "mixed delimiters", lines("1 2 3", "1,2,3"), "point 1 has 1 values, the points before 3"),
    ("csv", "decimal commas", lines("x;y;z", "1,5;2,5;3,5"), "its numbers have decimal commas, expected points"),
    ("csv", "an empty value", lines("x,y,z", "1,,3"), "point 0 has an empty value, in column 2"),
    ("csv", "no x, y, z", lines("a,b,c", "1,2,3"), "expected columns x, y and z, found a, b, c"),
    (
        "csv",
        "a header of another length",
        lines("x,y,z,w", "1,2,3"),
        "its header names 4 columns, its lines have 3 values",
    ),
    (
        "csv",
        "a column of text",
        lines("x,y,z,name", "1,2,3,chair"),
        "point 0 has 'chair', which is not a number, in column 4",
    ),
    ("pts", "cut off", lines(*PTS[:30]), "its first line says 50 points, 29 follow"),
    ("npy", "transposed", npy(XYZ.T), "positions are (3, 50), expected (N, 3): they are transposed"),
    ("npy", "a pickle", npy(np.array([None])), "the array holds Python objects, expected numbers"),
    ("npy", "no point", npy(XYZ[:0]), "expected at least one point, got positions of shape (0, 3)"),
    (
        "npz",
        "no positions",
        npz(where=XYZ),
        "expected positions under one of pos, xyz, points, data, coord, coords, found where",
    ),
    ("npz", "not an archive", lines("hello"), "not a complete .npz archive"),
    ("h5", "not HDF5", lines("hello"), "is not a complete HDF5 file"),
    (
        "h5",
        "ptr beyond the points",
        hdf5(pos=XYZ, ptr=np.array([0, 90])),
        "ptr divides 90 points into 1 clouds, expected all 50 of pos",
    ),
    (
        "h5",
        "lengths of another sum",
        hdf5(pos=XYZ, lengths=np.array([9, 9])),
        "lengths divides 18 points into 2 clouds, expected all 50",
    ),
    ("h5", "ptr that falls", hdf5(pos=XYZ, ptr=np.array([0, 30, 20, 50])), "ptr must rise, it goes from 30 to 20"),
    ("npz", "batch with a gap", npz(pos=XYZ, batch=np.arange(50) * 2), "batch is 2 at point 1; it must begin at 0"),
    (
        "h5",
        "a group without positions",
        hdf5(**{"a/where": XYZ}),
        "expected in each of 1 groups positions under one of pos",
    ),
    (
        "pt",
        "a huge tensor of one stored value",
        pt(HUGE),
        "data (10000000000, 3) has 120000000000 bytes, more than the limit",
    ),
    (
        "pt",
        "an object",
        pt({"cloud": Path("a")}),
        "it holds a dict, expected a tensor (N, C), a dict or a list of tensors",
    ),
    (
        "pt",
        "a list with something else",
        pt([torch.ones(5, 3), None]),
        "item 1 of its list is a NoneType, expected a tensor or a dict of tensors, a cloud each",
    ),
    ("pt", "not by torch", lines("hello"), "it was not written by torch.save"),
    ("pt", "cut off", cut(pt(torch.ones(500, 3)), 0.5), "it is damaged or cut off"),
    ("abc", "an unknown suffix", lines("1 2 3"), "unknown kind of file, expected one of"),
]


@pytest.mark.parametrize("suffix, what, write, features, shape", READ, ids=[f"{r[0]} {r[1]}" for r in READ])
def test_it_is_read(tmp_path, suffix, what, write, features, shape):
    path = tmp_path / f"a.{suffix}"
    write(path)
    several = {"sets of any size with ptr", "sets of any size with lengths", "a data set a cloud", "a group a cloud"}
    pos, feat = read_cloud(path, 0 if what in several else None, features=features)
    assert pos.shape == (shape[0], 3) and feat.shape == shape
    if shape[0] == 50 and "any order" not in what and suffix not in ("las", "laz") and "bfloat16" not in what:
        torch.testing.assert_close(pos.float(), torch.from_numpy(XYZ), atol=1e-5, rtol=0)
    if "rgb" in features:
        at = 0 if features[0] == "rgb" else feat.shape[1] - 3
        torch.testing.assert_close(feat[:, at : at + 3], torch.from_numpy(RGB / np.float32(255)))


@pytest.mark.parametrize("suffix, what, write, message", REFUSED, ids=[f"{r[0]} {r[1]}" for r in REFUSED])
def test_it_is_refused_with_its_reason(tmp_path, suffix, what, write, message):
    path = tmp_path / f"a.{suffix}"
    write(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=re.escape(f"cannot read {path}: {message}")) as caught:
            read_cloud(path)
    assert "\n" not in str(caught.value)


def test_as_many_kinds_as_promised():
    assert len({row[:2] for row in [*READ, *REFUSED]}) == len(READ) + len(REFUSED) >= 40


def markdown() -> str:
    """Both lists as a table."""
    out = ["| file | content | read as |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for suffix, what, _, features, shape in READ:
            names = ", ".join(features) or "positions"
            out.append(f"| .{suffix} | {what} | {shape[0]} points: {names} |")
        for suffix, what, write, *_ in REFUSED:
            path = Path(folder, f"a.{suffix}")
            write(path)
            try:
                read_columns(path)
            except ValueError as e:
                out.append(f"| .{suffix} | {what} | refused: {str(e).replace('|', '/').replace(f'{path} ', '')} |")
    return "\n".join(out)


if __name__ == "__main__":
    print(markdown())
