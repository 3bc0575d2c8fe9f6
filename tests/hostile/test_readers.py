"""Files of images, masks, depth maps and clouds."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pointmix import PointSet
from pointmix.io import read_cloud, read_depth, read_image

XYZ = np.random.default_rng(0).random((6, 3))


def png(width: int, height: int, data: bytes = b"", *, depth: int = 8, color: int = 2) -> bytes:
    """A PNG whose header says so, whatever its data are."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data or zlib.compress(b"")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(kind: str, size: tuple[int, int] = (8, 8), mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def flip(content: bytes, *places: int) -> bytes:
    return bytes(255 - b if i in [p % len(content) for p in places] else b for i, b in enumerate(content))


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 58, 0, 0, 54, 40, width, height, 1, 24, 0, 4, 0, 0, 0, 0) + b"1234"


def tiff(width: int, height: int, place: int = 8) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, place), (277, 1), (278, height), (279, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


IMAGES: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "vector graphics": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "terminal codes": b"\x1b[31m\x07\x00",
    "zeros": bytes(4096),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    "PDF": b"%PDF-1.4\n",
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(20),
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "icon": encoded("ICO"),
    "PCX": encoded("PCX"),
    "TGA": encoded("TGA"),
    "SGI": encoded("SGI"),
    "PNG of the signature alone": b"\x89PNG\r\n\x1a\n",
    "PNG without pixels": png(8, 8),
    "PNG of no width": png(0, 8),
    "PNG of 120 megapixels": png(12_000, 10_000),
    "PNG of 4 gigapixels": png(65_535, 65_535),
    "PNG of 2^62 pixels": png(2**31 - 1, 2**31 - 1),
    "PNG of 3 bits": png(8, 8, depth=3),
    "PNG of an unknown color": png(8, 8, color=5),
    "PNG with a damaged checksum": flip(encoded("PNG"), 30),
    "PNG with damaged pixels": flip(encoded("PNG"), 45, 46, 47),
    "PNG cut in its header": encoded("PNG")[:20],
    "PNG cut in its pixels": encoded("PNG", (64, 64))[:60],
    "PNG with text that grows": png(8, 8)[:-12] + struct.pack(">I", 0) + b"zTXt" + zlib.compress(bytes(1 << 20)),
    "JPEG of the signature alone": b"\xff\xd8\xff\xe0",
    "JPEG cut": encoded("JPEG", (64, 64))[:300],
    "JPEG without an end of its tables": encoded("JPEG")[:100],
    "JPEG of 4 gigapixels": encoded("JPEG").replace(b"\0\x11\x08\0\x08\0\x08", b"\0\x11\x08" + b"\xff" * 4),
    "WebP cut": encoded("WEBP", (64, 64))[:40],
    "WebP of the signature alone": b"RIFF\x10\0\0\0WEBPVP8 ",
    "WebP of 268 megapixels": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0\xff\x3f\0",
    "BMP of 1 gigapixel": bmp(32_768, 32_768),
    "BMP of no height": bmp(8, 0),
    "BMP cut": bmp(8, 8),
    "GIF cut": encoded("GIF")[:12],
    "GIF of 4 gigapixels": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";",
    "TIFF without tags": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
    "TIFF of 4 gigapixels": tiff(65_536, 65_536),
    "TIFF whose tags lie beyond its end": b"II*\0\xff\xff\xff\x0f",
    "TIFF that leads to itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "TIFF whose pixels lie beyond its end": tiff(8, 8, place=9999),
    "PPM of 10 gigapixels": b"P6 100000 100000 255\n",
    "PPM cut": b"P6 8 8 255\nabc",
    "PPM of text": b"P6 eight 8 255\n",
    "PPM below zero": b"P6 -8 8 255\n",
    "PPM of one long number": b"P6 " + b"9" * 5000,
    "PFM of NaN": b"Pf 2 2 -1.0\n" + struct.pack("<4f", *[float("nan")] * 4),
}


@pytest.mark.parametrize("case", IMAGES)
def test_images(case, folder, refused):
    Path("a.png").write_bytes(IMAGES[case])
    assert "a.png" in refused(lambda: read_image("a.png", 3))


@pytest.mark.parametrize("case", IMAGES)
def test_masks(case, folder, refused):
    Path("a.png").write_bytes(encoded("PNG"))
    Path("m.png").write_bytes(IMAGES[case])
    assert "m.png" in refused(lambda: PointSet.from_file("a.png", "m.png"))


@pytest.mark.parametrize("case", [name for name in IMAGES if "giga" in name or "mega" in name or "cut" in name])
def test_depth_maps(case, folder, refused):
    Path("d.png").write_bytes(IMAGES[case])
    assert "d.png" in refused(lambda: read_depth("d.png"))


def npy(shape: str, kind: str = "<f8", data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(header)) + header + data


def packed(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def ply(*lines: str, data: bytes = b"") -> bytes:
    return "\n".join(["ply", *lines, "end_header", ""]).encode() + data


ASCII, BINARY = "format ascii 1.0", "format binary_little_endian 1.0"
FLOATS = ("property float x", "property float y", "property float z")
POINT = struct.pack("<3f", 1, 2, 3)
CLOUDS: dict[str, bytes] = {
    "x.ply": b"",
    "text.ply": b"hello\n",
    "header alone.ply": b"ply\n",
    "no end of the header.ply": b"ply\nformat ascii 1.0\nelement vertex 1\n" + b"comment x\n" * 1000,
    "one endless line.ply": b"ply\n" + b"x" * 100_000,
    "10^12 points.ply": ply(BINARY, "element vertex 1000000000000", *FLOATS, data=POINT),
    "10^12 points in text.ply": ply(ASCII, "element vertex 1000000000000", *FLOATS, data=b"1 2 3\n"),
    "10^30 points.ply": ply(BINARY, f"element vertex {10**30}", *FLOATS, data=POINT),
    "-1 points.ply": ply(BINARY, "element vertex -1", *FLOATS, data=POINT),
    "NaN points.ply": ply(BINARY, "element vertex nan", *FLOATS, data=POINT),
    "no number of points.ply": ply(BINARY, "element vertex", *FLOATS, data=POINT),
    "no points.ply": ply(BINARY, "element vertex 0", *FLOATS),
    "cut points.ply": ply(BINARY, "element vertex 2", *FLOATS, data=POINT),
    "cut text.ply": ply(ASCII, "element vertex 2", *FLOATS, data=b"1 2 3\n"),
    "words for numbers.ply": ply(ASCII, "element vertex 1", *FLOATS, data=b"one two three\n"),
    "NaN for a number.ply": ply(ASCII, "element vertex 1", *FLOATS, data=b"nan 2 3\n"),
    "no z.ply": ply(ASCII, "element vertex 1", *FLOATS[:2], data=b"1 2\n"),
    "x twice.ply": ply(ASCII, "element vertex 1", *FLOATS, FLOATS[0], data=b"1 2 3 4\n"),
    "unknown type.ply": ply(ASCII, "element vertex 1", "property quaternion x", data=b"1\n"),
    "unknown format.ply": ply("format utf8 1.0", "element vertex 1", *FLOATS, data=b"1 2 3\n"),
    "no format.ply": ply("element vertex 1", *FLOATS, data=b"1 2 3\n"),
    "no vertex.ply": ply(ASCII, "element face 1", "property int a", data=b"1\n"),
    "huge list.ply": ply(
        BINARY, "element vertex 1", "property list uint float x", data=struct.pack("<If", 2**32 - 1, 0)
    ),
    "property of nothing.ply": ply(ASCII, "property float x", "element vertex 1", data=b"1\n"),
    "x.npy": b"",
    "text.npy": b"hello",
    "magic alone.npy": b"\x93NUMPY\1\0",
    "unknown version.npy": npy("(6, 3)", version=b"\x09\0"),
    "huge header.npy": b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{",
    "code in the header.npy": b"\x93NUMPY\1\0" + struct.pack("<H", 30) + b"__import__('os').system('x')   ",
    "deep header.npy": npy("(" * 200 + ")" * 200),
    "objects.npy": packed(np.array([XYZ, None], dtype=object)),
    "text in rows.npy": packed(np.array([["a", "b", "c"]])),
    "dates.npy": packed(np.array([["2020-01-01"] * 3], dtype="M8[D]")),
    "fields.npy": packed(np.zeros(4, dtype=[("x", "f4"), ("y", "f4")])),
    "complex.npy": packed(XYZ.astype(complex)),
    "a scalar.npy": packed(np.float64(1)),
    "one row.npy": packed(np.ones(3)),
    "four dimensions.npy": packed(np.ones((1, 1, 6, 3))),
    "no rows.npy": packed(np.ones((0, 3))),
    "no columns.npy": packed(np.ones((6, 0))),
    "infinity.npy": packed(np.full((6, 3), np.inf)),
    "10^12 rows.npy": npy("(1000000000000, 3)"),
    "2^63 rows.npy": npy(f"({2**63}, 3)"),
    "-6 rows.npy": npy("(-6, 3)", data=XYZ.tobytes()),
    "cut.npy": packed(XYZ)[:-8],
    "unknown kind.npy": npy("(6, 3)", kind="<q9"),
    "x.npz": b"",
    "text.npz": b"hello",
    "cut.npz": b"PK\3\4" + bytes(100),
    "x.h5": b"",
    "text.h5": b"hello",
    "signature alone.h5": b"\x89HDF\r\n\x1a\n",
    "zeros.h5": b"\x89HDF\r\n\x1a\n" + bytes(4096),
    "ones.hdf5": b"\x89HDF\r\n\x1a\n" + b"\xff" * 4096,
}


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds(name, folder, refused):
    Path(name).write_bytes(CLOUDS[name])
    assert name in refused(lambda: read_cloud(name))


def archive(**members: bytes) -> None:
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def bomb(gib: int) -> None:
    """Zeros under a true header, a thousandth of their size."""
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("pos.npy", "w", force_zip64=True) as member:
            member.write(npy(f"({gib * (1 << 27) // 3}, 3)"))
            for _ in range(4):
                member.write(bytes(1 << 20))


ARCHIVES: dict[str, Callable[[], object]] = {
    "without arrays": lambda: archive(),
    "without positions": lambda: archive(weights=packed(XYZ)),
    "text for an array": lambda: archive(pos=b"hello"),
    "array cut": lambda: archive(pos=packed(XYZ)[:-8]),
    "array of 10^12 rows": lambda: archive(pos=npy("(1000000000000, 3)")),
    "more bytes than its member": lambda: bomb(4),
    "objects": lambda: archive(pos=packed(np.array([XYZ, None], dtype=object))),
    "features of other points": lambda: archive(pos=packed(XYZ), feat=packed(np.ones((5, 1)))),
    "colors of text": lambda: archive(pos=packed(XYZ), colors=packed(np.array([["a"] * 3] * 6))),
    "many clouds and no index": lambda: archive(pos=packed(np.ones((2, 6, 3)))),
    "name of a folder": lambda: archive(**{"../pos": packed(XYZ)}),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(case, folder, refused):
    ARCHIVES[case]()
    assert "a.npz" in refused(lambda: read_cloud("a.npz"))


def h5(fill: Callable[[h5py.File], object]) -> None:
    with h5py.File("other.h5", "w") as other:
        other["pos"] = XYZ
    with h5py.File("a.h5", "w") as file:
        fill(file)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6, 3), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "pos", (6, 3))
    file.create_virtual_dataset("pos", layout)


HDF5: dict[str, Callable[[h5py.File], object]] = {
    "nothing": lambda f: None,
    "a group for positions": lambda f: f.create_group("pos"),
    "text for positions": lambda f: f.create_dataset("pos", data=["a", "b"]),
    "an empty array": lambda f: f.create_dataset("pos", data=h5py.Empty("f8")),
    "a scalar": lambda f: f.create_dataset("pos", data=1.0),
    "arrays of no fixed length": lambda f: f.create_dataset("pos", (6, 3), h5py.vlen_dtype(np.float64)),
    "fields": lambda f: f.create_dataset("pos", data=np.zeros(6, [("x", "f4")])),
    "10^12 rows": lambda f: f.create_dataset("pos", (10**12, 3), "f8", chunks=(1024, 3), compression="gzip"),
    "2^62 rows": lambda f: f.create_dataset("pos", (2**62, 3), "f8", chunks=(1024, 3)),
    "a chunk of 3 GiB": lambda f: f.create_dataset("pos", (2**27, 1, 3), "f8", chunks=(2**27, 1, 3)),
    "link to another file": lambda f: f.__setitem__("pos", h5py.ExternalLink("other.h5", "/pos")),
    "link to a system's file": lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/hostname", "/")),
    "soft link to a link to another file": lambda f: (
        f.__setitem__("x", h5py.ExternalLink("other.h5", "/pos")),
        f.__setitem__("pos", h5py.SoftLink("/x")),
    ),
    "soft link to nothing": lambda f: f.__setitem__("pos", h5py.SoftLink("/gone")),
    "soft link to itself": lambda f: f.__setitem__("pos", h5py.SoftLink("/pos")),
    "values in a system's file": lambda f: f.create_dataset("pos", (2, 3), "f8", external=[("/etc/passwd", 0, 48)]),
    "values in another HDF5 file": virtual,
    "NaN": lambda f: f.create_dataset("pos", data=np.full((6, 3), np.nan)),
}


@pytest.mark.parametrize("case", HDF5)
def test_hdf5(case, folder, refused):
    h5(HDF5[case])
    assert "a.h5" in refused(lambda: read_cloud("a.h5", index=0 if "chunk" in case else None))


PLACES = {
    "nothing": lambda name: None,
    "a folder": lambda name: Path(name).mkdir(),
    "a pipe": lambda name: os.mkfifo(name),
    "a device": lambda name: Path(name).symlink_to("/dev/zero"),
    "a link to nothing": lambda name: Path(name).symlink_to("gone"),
    "a link to itself": lambda name: Path(name).symlink_to(name),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["a.png", "a.ply", "a.npy", "a.npz", "a.h5"])
def test_places_without_a_file(place, name, folder, refused):
    PLACES[place](name)
    assert name in refused(lambda: PointSet.from_file(name))


OPTIONS = {
    "unknown end": lambda: PointSet.from_file("a.abc"),
    "no end": lambda: PointSet.from_file("a"),
    "null byte": lambda: PointSet.from_file("a\0b.ply"),
    "very long name": lambda: PointSet.from_file("a" * 400 + ".png"),
    "mask of a cloud": lambda: PointSet.from_file("a.npy", "m.png"),
    "index of an image": lambda: PointSet.from_file("a.png", index=1),
    "index too large": lambda: PointSet.from_file("a.npy", index=1),
    "index below zero": lambda: PointSet.from_file("a.npy", index=-1),
    "unknown features": lambda: read_cloud("a.npy", features="smell"),
    "unknown columns": lambda: read_cloud("a.npy", features="rgb", columns="xyz"),
    "columns without an array": lambda: read_cloud("a.npy", features="rgb", columns=("rgb", "rgb")),
    "features that are not there": lambda: read_cloud("a.npy", features="normal"),
    "means of other channels": lambda: PointSet.from_file("a.png", mean=[1, 2]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case, folder, refused):
    np.save("a.npy", XYZ)
    Path("a.png").write_bytes(encoded("PNG"))
    Path("m.png").write_bytes(encoded("PNG"))
    refused(OPTIONS[case])
