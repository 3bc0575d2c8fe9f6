from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.segment.clouds.scene_folders import read_scene, scene_folders
from pointmix.io.errors import UnreadableSample


def write(folder, **arrays: np.ndarray):
    folder.mkdir(parents=True)
    for name, array in {"coord": np.zeros((4, 3), np.float32), **arrays}.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_the_features_that_are_asked_for_are_read(tmp_path):
    scene = write(tmp_path / "a", color=np.full((4, 3), 9, np.uint8), strength=np.arange(4), segment=np.ones((4, 1)),
                  segment200=np.zeros(4), instance=np.zeros(4))  # fmt: skip
    (scene / "normal.npy").write_bytes(b"broken")
    pos, features, label = read_scene(scene, ("segment20", "segment"), ("strength", "rgb"))[:3]
    assert pos.shape == (4, 3) and label.tolist() == [[1]] * 4 and list(features) == ["strength", "rgb"]
    assert features["rgb"].dtype == np.uint8 and features["strength"].tolist() == [0, 1, 2, 3]
    with pytest.raises(UnreadableSample, match="cannot read normal.npy"):
        read_scene(scene, ("segment",))
    with pytest.raises(UnreadableSample, match="no feature height .* has: rgb, normal, segment200, strength"):
        read_scene(scene, ("segment",), ("rgb", "height"))
    (scene / "normal.npy").unlink()
    assert list(read_scene(scene, ("segment",)).features) == ["rgb", "segment200", "strength"]


def test_the_first_name_of_labels_counts(tmp_path):
    scene = write(tmp_path / "a", segment=np.zeros(4), segment20=np.ones(4))
    assert read_scene(scene, ("segment20", "segment")).label.tolist() == [1] * 4
    assert read_scene(scene, ("other",)).label is None


def test_damaged_files(tmp_path):
    scene = write(tmp_path / "a", segment=np.zeros(4))
    (scene / "segment.npy").write_bytes((scene / "segment.npy").read_bytes()[:-8])
    with pytest.raises(UnreadableSample, match="cannot read segment.npy: Failed to read all data"):
        read_scene(scene, ("segment",))
    (scene / "coord.npy").unlink()
    with pytest.raises(UnreadableSample, match="cannot read coord.npy: no file"):
        read_scene(scene, ("segment",))


def test_scenes_are_complete(tmp_path):
    for name in "ba":
        write(tmp_path / name, segment=np.zeros(4))
    for junk in (".hidden", "@eaDir"):
        (tmp_path / junk).mkdir()
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in scene_folders(tmp_path, ("segment",))] == ["a", "b"]
    with pytest.raises(
        FileNotFoundError, match="no file segment20.npy or segment21.npy in .*/a, the labels of the scene"
    ):
        scene_folders(tmp_path, ("segment20", "segment21"))
    (tmp_path / "b/coord.npy").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*/b/coord.npy, the positions of the scene"):
        scene_folders(tmp_path, ("segment",))
    with pytest.raises(FileNotFoundError, match="no folder .*/c, expected .*/c/SCENE/coord.npy"):
        scene_folders(tmp_path / "c", ("segment",))
    with pytest.raises(FileNotFoundError, match="has no scenes"):
        scene_folders(tmp_path / ".hidden", ("segment",))
