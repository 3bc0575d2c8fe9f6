"""Files of every kind that can be read, and the points in them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

XYZ = np.random.default_rng(0).random((50, 3)).astype(np.float32)
RGB = np.random.default_rng(1).integers(0, 256, (50, 3), dtype=np.uint8)
SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"

Write = Callable[[Path], object]


def lines(*rows: str, end: str = "\n") -> Write:
    return lambda path: path.write_bytes(end.join([*rows, ""]).encode())


def rows(table: np.ndarray, mark: str = " ") -> list[str]:
    return [mark.join(f"{value:.6g}" for value in row) for row in table]


def ply(kind: str, body: bytes, *properties: str, points: int = 50, more: str = "") -> Write:
    names = "".join(f"property {name}\n" for name in ("float x", "float y", "float z", *properties))
    head = f"ply\nformat {kind} 1.0\nelement vertex {points}\n{names}{more}end_header\n"
    return lambda path: path.write_bytes(head.encode() + body)


def pcd(data: str, body: bytes, *, points: int = 50, fields: str = "x y z", size: str = "4", kind: str = "F") -> Write:
    n = len(fields.split())
    head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {' '.join([size] * n)}\nTYPE {' '.join([kind] * n)}\n"
    head += f"COUNT {' '.join('1' * n)}\nWIDTH {points}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\n"
    return lambda path: path.write_bytes(f"{head}DATA {data}\n".encode() + body)


def lzf(plain: bytes, *, size: int | None = None) -> bytes:
    """As LibLZF would store what it cannot compress: runs of 32 bytes."""
    runs = [plain[i : i + 32] for i in range(0, len(plain), 32)]
    packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
    return struct.pack("<II", len(packed), len(plain) if size is None else size) + packed


def hdf5(**arrays: np.ndarray) -> Write:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value

    return write


def npz(**arrays: np.ndarray) -> Write:
    return lambda path: np.savez(path, **arrays)


def npy(array: np.ndarray) -> Write:
    return lambda path: np.save(path, array)


def pt(value: object) -> Write:
    return lambda path: torch.save(value, path)


def cut(write: Write, kept: float) -> Write:
    def shorter(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])

    return shorter


def las(path: Path, points: int = 50) -> None:
    laspy = pytest.importorskip("laspy", reason="laspy is not installed")
    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales, header.offsets = [0.001] * 3, [500_000, 4_500_000, 0]
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = (XYZ[:points].astype(np.float64) + header.offsets).T
    cloud.red, cloud.green, cloud.blue = RGB[:points].T
    cloud.write(path)


def laz(path: Path) -> None:
    pytest.importorskip("lazrs", reason="lazrs is not installed")
    las(path)


STL = b"\0" * 80 + struct.pack("<I", 2) + b"".join(
    struct.pack("<12fH", 0, 0, 1, *corners, 0) for corners in ((0, 0, 0, 1, 0, 0, 1, 1, 0), (0, 0, 0, 1, 1, 0, 0, 1, 0))
)  # fmt: skip
STL_TEXT = "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 1 1 0\nendloop\nendfacet\n"
OFF_BODY, OBJ_BODY = f"4 2 0\n{SQUARE}3 0 1 2\n3 0 2 3", "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4"
NAN = np.where(np.arange(150).reshape(50, 3) == 21, np.nan, XYZ).astype(np.float32)
HUGE = torch.zeros(1).expand(10**10, 3)
RECORDS = np.rec.fromarrays([*XYZ.T, RGB[:, 0]], names="x,y,z,intensity")
F4 = XYZ.tobytes()
WITH_COLOR = np.rec.fromarrays([*XYZ.T, *RGB.T]).tobytes()
PACKED = ((RGB.astype(np.uint32) << [16, 8, 0]).sum(1)).astype(np.uint32).view(np.float32)
COLORS = ("uchar red", "uchar green", "uchar blue")
FACE = "element face 1\nproperty list uchar int vertex_indices\n"
PTS = ["50", *rows(np.concatenate([XYZ, RGB[:, :1], RGB], axis=1))]
