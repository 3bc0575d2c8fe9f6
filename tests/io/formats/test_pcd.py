"""Compressed points of .pcd files, against the LZF of HDF5."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from pointmix.io import read_columns
from pointmix.io.formats.pcd import unpack_lzf

RNG = np.random.default_rng(0)


def pack_lzf(plain: bytes) -> bytes:
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        values = np.frombuffer(plain, np.uint8)
        stored = file.create_dataset("a", data=values, chunks=values.shape, compression="lzf")
        mask, packed = stored.id.read_direct_chunk((0,))
    assert mask == 0, "HDF5 stored it without compression"
    return packed


@pytest.mark.parametrize(
    "plain",
    [
        bytes(10_000),
        b"ab" * 5_000,
        bytes(RNG.integers(0, 3, 20_000, dtype=np.uint8)),
        np.linspace(0, 1, 50, dtype=np.float32).repeat(100).tobytes(),
        bytes(RNG.integers(0, 256, 500, dtype=np.uint8)) * 40,
    ],
)
def test_lzf(plain):
    packed = pack_lzf(plain)
    assert len(packed) < len(plain) and unpack_lzf(packed, len(plain)) == plain
    for damaged in (packed[:-1], packed + b"\0", packed[5:]):
        with pytest.raises(ValueError, match="damaged"):
            unpack_lzf(damaged, len(plain))
    with pytest.raises(ValueError, match="damaged"):
        unpack_lzf(packed, len(plain) - 1)


def test_fields_of_several_values_and_padding(tmp_path):
    fields = "VERSION .7\nFIELDS x y z _ histogram label\nSIZE 4 4 4 1 4 2\nTYPE F F F U F U\nCOUNT 1 1 1 4 3 1\n"
    kinds = [("xyz", "<f4", 3), ("pad", "u1", 4), ("histogram", "<f4", 3), ("label", "<u2")]
    points = np.zeros(5, kinds)
    points["xyz"], points["histogram"], points["label"] = RNG.random((5, 3)), RNG.random((5, 3)), np.arange(5)
    head = f"{fields}WIDTH 5\nHEIGHT 1\nPOINTS 5\nDATA binary\n"
    (tmp_path / "a.pcd").write_bytes(head.encode() + points.tobytes())
    found = read_columns(tmp_path / "a.pcd")
    assert np.array_equal(found.pos, points["xyz"]) and np.array_equal(found.label, points["label"])
    assert list(found.features) == ["histogram"] and np.array_equal(found.features["histogram"], points["histogram"])
