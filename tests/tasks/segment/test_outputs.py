"""Files of predicted labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.explain.class_colors import class_colors
from pointmix.io import read_cloud
from pointmix.tasks.segment import outputs
from pointmix.tasks.segment.outputs import HIDDEN, OutputNames, palette_image, write_image, write_npy, write_ply


def test_palette_images_hold_indices_and_colors(tmp_path):
    label = np.array([[0, 1, 2], [2, 1, -1]])
    colors = np.array([[10, 20, 30], [1, 2, 3], [250, 0, 0]], dtype=np.uint8)
    palette_image(label, colors).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.mode == "P"
        assert np.asarray(picture).tolist() == [[0, 1, 2], [2, 1, HIDDEN]]
        shown = np.asarray(picture.convert("RGB"))
    assert (shown[label >= 0] == colors[label[label >= 0]]).all()


@pytest.mark.parametrize("classes", [255, 256, 700])
def test_labels_of_many_classes_are_not_cut(tmp_path, classes):
    label = np.array([[classes - 1, 0, -1]])
    palette_image(label, class_colors(classes)).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert np.asarray(picture).tolist() == [[classes - 1, 0, 255 if classes == 255 else 65535]]


def test_confidence_is_255_where_it_is_certain(tmp_path):
    files = [tmp_path / name for name in ("l.png", "o.png", "c.png")]
    image, sure = Image.new("RGB", (2, 1)), np.array([[1.0, 0.5]], dtype=np.float32)
    write_image(np.array([[0, 1]]), sure, image, ["a", "b"], class_colors(2), files)
    with Image.open(files[2]) as picture:
        assert np.asarray(picture).tolist() == [[255, 128]]
    assert all(file.exists() for file in files)


@pytest.mark.parametrize("far", [0.0, 6e6])
def test_clouds_keep_the_precision_of_their_positions(tmp_path, far):
    plyfile = pytest.importorskip("plyfile")
    pos = np.random.default_rng(0).random((5, 3)).astype(np.float32).astype(np.float64) + far
    label, sure, colors = np.array([0, 1, 1, 0, 1]), np.linspace(0.5, 1, 5).astype(np.float32), class_colors(2)
    write_ply(pos, label, sure, colors, tmp_path / "c.ply")
    vertex = plyfile.PlyData.read(tmp_path / "c.ply")["vertex"]
    assert np.array_equal(np.stack([vertex[axis] for axis in "xyz"], 1), pos)
    assert vertex["x"].dtype == ("f8" if far else "f4")
    assert vertex["label"].tolist() == label.tolist() and vertex["confidence"].tolist() == sure.tolist()
    with pytest.warns(UserWarning, match="not read from .ply files"):
        found, feat = read_cloud(tmp_path / "c.ply")
    assert np.array_equal(found.numpy(), pos)
    assert np.array_equal((255 * feat.numpy()).round().astype(np.uint8), colors[label])


def test_npy_holds_labels_and_confidence(tmp_path):
    write_npy(np.array([3, 0]), np.array([0.5, 0.25], dtype=np.float32), tmp_path / "c.npy")
    found = np.load(tmp_path / "c.npy")
    assert found["label"].tolist() == [3, 0] and found["confidence"].tolist() == [0.5, 0.25]


def test_names_that_collide_are_told_apart_and_inputs_are_not_overwritten(tmp_path):
    inputs = [str(tmp_path / name) for name in ("x.ply", "a/y.ply", "b/y.npz", "y_2.ply")]
    names = OutputNames(tmp_path, inputs)
    found = [names(path, [".ply"])[0].name for path in inputs]
    assert found == ["x_2.ply", "y.ply", "y_3.ply", "y_2_2.ply"]
    two = OutputNames(tmp_path, ["a.png", str(tmp_path / "a_overlay.png")])
    assert [file.name for file in two("a.png", ["_labels.png", "_overlay.png"])] == [
        "a_2_labels.png",
        "a_2_overlay.png",
    ]


def test_a_failed_write_leaves_no_half_file(tmp_path, monkeypatch):
    def fail(self, opened, **kwargs):
        opened.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        outputs.write_image(
            np.zeros((1, 1), int),
            None,
            Image.new("RGB", (1, 1)),
            ["a"],
            class_colors(1),
            [tmp_path / "l", tmp_path / "o"],
        )
    assert list(tmp_path.iterdir()) == []
