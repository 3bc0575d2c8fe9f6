"""Masks: from the values of files to classes, and what is refused or skipped."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pointmix.data.segment.images.masks import mask_reader
from pointmix.data.segment.images.palettes import read_palette
from pointmix.io.errors import BadMask, UnreadableSample
from tests.data.segment.images.files import SIZE, stripes, write_mask

VALUES = stripes(3)


def read(path, classes=3, palette=None, **settings):
    return mask_reader(classes, palette=palette, **settings).read(path, SIZE)


def refused(path, *words, **settings):
    """The mask stops a run, with one line that holds these words."""
    with pytest.raises(BadMask) as error:
        read(path, **settings)
    assert "\n" not in str(error.value)
    for word in (str(path), *words):
        assert word in str(error.value)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_gray_masks_of_both_depths(tmp_path, kind):
    label = read(write_mask(tmp_path / "m.png", VALUES.astype(kind)))
    assert label.dtype == np.int64 and (label == VALUES).all()


def test_more_classes_than_a_byte_counts(tmp_path):
    values = stripes(3).astype(np.uint16) + 400
    path = write_mask(tmp_path / "m.png", values)
    assert (read(path, classes=500, ignore_index=65535) == values).all()
    for settings in ({"classes": 256}, {"classes": 255, "reduce_zero_label": True}):
        with pytest.raises(ValueError, match="label 255 is one of 25[56] classes, .* set data.ignore_index"):
            read(path, **settings)


def test_a_mask_is_turned_by_its_exif(tmp_path):
    values, exif = stripes(3), Image.Exif()
    exif[274] = 3  # upside down
    Image.fromarray(values).save(tmp_path / "m.png", exif=exif)
    assert (read(tmp_path / "m.png") == values[::-1, ::-1]).all()


def test_a_palette_image_gives_indices_not_colors(tmp_path):
    path = write_mask(tmp_path / "m.png", VALUES, palette=[9, 9, 9, 200, 0, 0, 0, 0, 200])
    assert Image.open(path).mode == "P" and (read(path) == VALUES).all()


def test_black_and_white(tmp_path):
    Image.fromarray(VALUES > 0).save(tmp_path / "m.png")
    assert (read(tmp_path / "m.png", classes=2) == (VALUES > 0)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_masks_of_less_than_a_byte(tmp_path, bits):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = stripes(2**bits)
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, 0, 0, 0, 0)  # gray
    digits = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(digits.reshape(SIZE[0], -1), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert (read(tmp_path / "m.png", classes=255) == values).all()  # not stretched to the range of a byte


def test_white_as_zero(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "m.tif")
    written = (tmp_path / "m.tif").read_bytes()
    photometric = [struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0)]  # black is 0, white is 0
    assert written.count(photometric[0]) == 1
    (tmp_path / "m.tif").write_bytes(written.replace(*photometric))
    with Image.open(tmp_path / "m.tif") as image:
        assert (np.array(image) != VALUES).any()  # inverted by Pillow
    refused(tmp_path / "m.tif", "white")


def test_255_is_ignored(tmp_path):
    values = VALUES.copy()
    values[2, 3] = 255
    label = read(write_mask(tmp_path / "m.png", values))
    assert label[2, 3] == -1 and (label == -1).sum() == 1


def test_reduced_zero_label(tmp_path):
    values = VALUES.copy()
    values[0, 0] = 255
    label = read(write_mask(tmp_path / "m.png", values), classes=2, reduce_zero_label=True)
    expected = VALUES.astype(int) - 1
    expected[0, 0] = -1
    assert (label == expected).all()


def test_label_map(tmp_path):
    path = write_mask(tmp_path / "m.png", VALUES)
    assert (read(path, classes=2, label_map={0: 1, 2: 0}) == np.array([1, -1, 0])[VALUES]).all()


def test_label_starts(tmp_path):
    path = write_mask(tmp_path / "m.png", np.array([0, 1, 19, 20, 255], dtype=np.uint8)[stripes(5)])
    label = read(path, classes=2, label_starts=(1, 20))
    assert (label == np.array([-1, 0, 0, 1, 1])[stripes(5)]).all()


def test_a_label_beyond_the_classes_is_named_with_its_pixel(tmp_path):
    values = VALUES.copy()
    values[4, 6], values[5, 1] = 7, 9
    refused(write_mask(tmp_path / "m.png", values), "label 7 at row 4, column 6", "1 more", "0 to 2", "255")
    refused(write_mask(tmp_path / "zero.png", VALUES * 3), "label 6", "1 to 3", classes=3, reduce_zero_label=True)


def test_a_value_too_large_for_a_table(tmp_path):
    Image.fromarray(VALUES.astype(np.int32) + 70000).save(tmp_path / "m.tif")
    refused(tmp_path / "m.tif", "label 70000 at row 0, column 0")
    Image.fromarray(VALUES.astype(np.int32) - 1).save(tmp_path / "n.tif")
    refused(tmp_path / "n.tif", "label -1 at row 0, column 0", label_map={0: 0})


def test_another_size(tmp_path):
    path = write_mask(tmp_path / "m.png", VALUES.T.copy())
    refused(path, "8x6", "6x8")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colors_need_a_palette_file(tmp_path, mode):
    Image.fromarray(VALUES).convert(mode).save(tmp_path / "m.png")
    refused(tmp_path / "m.png", mode, "--data.palette_file")


def test_a_lossy_mask(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "m.jpg")
    refused(tmp_path / "m.jpg", "JPEG")


def test_floats(tmp_path):
    Image.fromarray(VALUES.astype(np.float32)).save(tmp_path / "m.tif")
    refused(tmp_path / "m.tif", "floats")


def test_all_ignored_and_damaged_masks_are_skipped(tmp_path):
    ignored = write_mask(tmp_path / "ignored.png", np.full(SIZE, 255, dtype=np.uint8))
    whole = write_mask(tmp_path / "m.png", stripes(3, size=(60, 80))).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    for path, words in [
        (ignored, "every pixel"),
        (tmp_path / "cut.png", "cannot read"),
        (tmp_path / "text.png", "Pillow"),
    ]:
        with pytest.raises(UnreadableSample, match=words) as error:
            read(path)
        assert not isinstance(error.value, BadMask) and str(path) in str(error.value)


# ---- masks in color -----------------------------------------------------------------------------------------------

COLORS = np.array([[10, 0, 0], [0, 20, 0], [0, 0, 30]], dtype=np.uint8)


@pytest.fixture
def palette(tmp_path):
    (tmp_path / "palette.txt").write_text("# colors\n10 0 0 road surface\n0 0 30\n0,20,0,tree\n")
    return read_palette(tmp_path / "palette.txt")


def test_masks_in_color(tmp_path, palette):
    assert palette.names == ("road surface", "tree") and palette.ignored == ((0, 0, 30),)
    path = write_mask(tmp_path / "m.png", COLORS[VALUES])
    assert (read(path, 2, palette) == np.array([0, 1, -1])[VALUES]).all()


def test_with_a_palette_file_the_colors_of_a_palette_image_count(tmp_path, palette):
    path = write_mask(tmp_path / "m.png", VALUES, palette=[0, 20, 0, 10, 0, 0, 0, 0, 30])  # saved in another order
    assert (read(path, 2, palette) == np.array([1, 0, -1])[VALUES]).all()


def test_an_unknown_color(tmp_path, palette):
    colors = COLORS[VALUES]
    colors[1, 2] = 77
    refused(write_mask(tmp_path / "m.png", colors), "color (77, 77, 77) at row 1, column 2", palette=palette)
    refused(write_mask(tmp_path / "gray.png", VALUES), "color (0, 0, 0)", palette=palette)


def test_the_form_with_the_name_first(tmp_path):
    (tmp_path / "classes.csv").write_text("name,r,g,b\nroad,1,2,3\nstop sign,4,5,6\n")
    assert read_palette(tmp_path / "classes.csv") == (("road", "stop sign"), ((1, 2, 3), (4, 5, 6)), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3 a\n1 2 3 b", "line 2: color \\(1, 2, 3\\) occurs twice"),
        ("1 2 3\n1 2 3 b", "line 2: color .* occurs twice"),
        ("1 2 3 a\n1 2 4 a", "line 2: class 'a' occurs twice"),
        ("1 2 300 a", "line 1"),
        ("1 2 3\n", "names no class"),
    ],
)
def test_bad_palette_files(tmp_path, text, words):
    (tmp_path / "palette.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_palette(tmp_path / "palette.txt")


# ---- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_map": {0: 3}}, "data.label_map 0: 3"),
        ({"label_map": {-1: 0}}, "data.label_map -1: 0"),
        ({"label_starts": (1, 20)}, "expected 3 rising numbers"),
        ({"label_starts": (1, 1, 2)}, "rising"),
        ({"label_map": {0: 0}, "reduce_zero_label": True}, "data.label_map and data.reduce_zero_label"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        mask_reader(3, **settings)
