from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from pointmix import PointSet
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.sources.folder import source_of
from pointmix.data.clouds.splits import PointSplits, build_points, build_points_test
from pointmix.engine.checkpoint import load_run
from pointmix.engine.train import train
from pointmix.io.errors import UnreadableSample
from pointmix.tasks.classify_points import ClassifyPointsConfig
from pointmix.tasks.classify_points.files import read_for
from pointmix.tasks.config import ModelConfig

CALL = {"batch_size": 4, "eval_batch_size": 4, "seed": 0}
TILT = {"flat": [1, 1, 0.1], "tall": [0.1, 0.1, 1]}
COC = dict(
    stem=[3, 2, 1], depths=[1], dims=[8], mlp_ratios=[2], heads=1, head_dim=8,
    windows_per_side=[1], centers_per_side=[2], layer_scale=1.0,
)  # fmt: skip


def write_ply(path: Path, pos: np.ndarray, *, color: bool = True) -> None:
    names = [(name, "f8") for name in "xyz"]
    names += [(name, "u1") for name in ("red", "green", "blue")] * color + [("intensity", "u2")]
    vertex = np.empty(len(pos), names)
    vertex["x"], vertex["y"], vertex["z"] = pos.T
    for name in ("red", "green", "blue") if color else ():
        vertex[name] = np.arange(len(pos)) % 256
    vertex["intensity"] = np.arange(len(pos)) % 900
    path.parent.mkdir(parents=True, exist_ok=True)
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(path))


def clouds(root: Path, *, offset: tuple[float, float, float] = (0, 0, 0), splits=(("train", 8), ("test", 3))) -> Path:
    """Clouds of 5 to 80 points on a grid of 1 / 1024."""
    rng = np.random.default_rng(0)
    for split, count in splits:
        for name, sides in TILT.items():
            for i in range(count):
                size = 5 if i == 1 else int(rng.integers(20, 80))
                pos = np.round(rng.normal(size=(size, 3)) * sides * 1024) / 1024
                write_ply(root / split / name / f"{i}.ply", pos + np.array(offset))
    return root


def config(root: Path, **data) -> PointDataConfig:
    return PointDataConfig(source="folder", root=str(root), **{"points": 32, **data})


def build(root: Path, **data) -> PointSplits:
    return build_points(config(root, **data), **CALL)


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    root = clouds(tmp_path)
    for junk in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        (root / "train" / junk).mkdir()
    (root / "train/flat/._0.ply").touch()
    (root / "train/flat/notes.docx").touch()
    (root / "train/flat/notes.txt").write_text("scanned by hand,\n3 of them twice\n")
    with pytest.warns(UserWarning) as warned:
        splits = build(root, val_fraction=0.25)
    texts = " ".join(str(w.message) for w in warned)
    assert "skipped, not a class" in texts and "files that are no clouds are left out: 1 .docx, 1 .txt" in texts
    assert "training clouds have fewer points than data.points 32; all of theirs are used" in texts
    assert splits.classes == ["flat", "tall"] and len(splits.train.dataset) == 12 and len(splits.test.dataset) == 6
    assert (splits.config.sampling, splits.config.normalize, splits.config.up) == ("random", "unit_sphere", "z")
    sizes = torch.cat([points.ptr.diff() for points, _ in splits.train])
    assert sizes.max() == 32 and sizes.min() < 32
    assert 1 < splits.extent < 8


def test_a_validation_split_of_its_own(tmp_path):
    root = clouds(tmp_path, splits=(("train", 4), ("val", 2), ("test", 2)))
    splits = build(root)
    assert len(splits.train.dataset) == 8 and "/val/" in splits.val.dataset.source.name(0)
    assert "/train/" in build(root, val_fraction=0.25).val.dataset.source.name(0)
    assert build(root, val_fraction=0.0).val is None


def test_files_of_several_kinds(tmp_path):
    root = clouds(tmp_path)
    xyz = np.random.default_rng(1).normal(size=(60, 3))
    np.save(root / "train/flat/a.npy", xyz)
    np.savez(root / "train/flat/b.npz", xyz=xyz, intensity=np.ones(60))
    splits = build(root, points=None, **{"max_points": 40})
    read = {Path(splits.train.dataset.source.name(i)).name for i in range(len(splits.train.dataset.source))}
    assert {"a.npy", "b.npz", "0.ply"} <= read
    sizes = torch.cat([points.ptr.diff() for points, _ in splits.train])
    assert sizes.max() == 40 and sizes.min() == 5 and not splits.train.failed


def test_a_csv_of_labels(tmp_path):
    root = clouds(tmp_path / "data")
    files = sorted((root / "train").rglob("*.ply"))
    lines = [f"{f.relative_to(root)},{'up' if f.parent.name == 'tall' else 'down'}" for f in files]
    splits = ["train"] * 5 + ["val"] + ["test"] * 2
    (root / "mine.csv").write_text(
        "path,Class,split\n" + "\n".join(f"{a},{b}" for a, b in zip(lines, splits * 2, strict=True))
    )
    found = build(root, labels="mine.csv", target_key="class")
    assert found.classes == ["down", "up"] and len(found.train.dataset) == 10
    assert len(found.val.dataset) == 2 and len(found.test.dataset) == 4
    (root / "labels.csv").write_text("file,label\n" + "\n".join(lines))
    assert len(build(root).train.dataset) == 15 - 1  # folders first
    (root / "train").rename(root / "all")
    (root / "labels.csv").write_text("file,label\n" + "\n".join(lines).replace("train/", "all/"))
    with pytest.warns(UserWarning, match="20% of each class are the test split"):
        alone = build(root, val_fraction=0.0)
    assert len(alone.train.dataset) + len(alone.test.dataset) == 16 and alone.classes == ["down", "up"]


def test_the_source_of_a_folder(tmp_path):
    assert source_of(str(tmp_path)) == "folder"
    for source, file in (
        ("scanobjectnn", "main_split_nobg/test_objectdataset.h5"),
        ("modelnet40", "ply_data_test0.h5"),
    ):
        path = tmp_path / source / file
        path.parent.mkdir(parents=True)
        path.touch()
        assert source_of(str(tmp_path / source)) == source
        assert ClassifyPointsConfig.root_source(str(tmp_path / source)) == source
        with pytest.raises(FileNotFoundError, match=f"holds the files of {source}; set data.source {source}"):
            build(tmp_path / source)


# ---- features, points, memory ---------------------------------------------------------------------------------------


def test_features_by_name_with_their_scales(tmp_path):
    root = clouds(tmp_path)
    splits = build(
        root, features=("rgb", "intensity"), points=None, **{"scale": (1, 1), "translate": 0, "shuffle": False}
    )
    assert splits.channels == {"rgb": (0, 3), "intensity": (3, 4)} and splits.in_chans == 4
    scale = splits.config.feature_scale
    assert scale["rgb"] == 255 and scale["intensity"] > 1
    points = splits.train.dataset[0, 0][0][0]
    intensity = torch.arange(len(points.feat)) / scale["intensity"]
    assert torch.allclose(points.feat, torch.stack([torch.arange(len(points.feat)) / 255] * 3 + [intensity], 1))
    test, _ = build_points_test(splits.config, batch_size=6)  # the same scales, without train
    assert torch.equal(next(iter(test))[0].feat, torch.cat([p.feat for p, _ in splits.test]))
    with pytest.raises(ValueError, match="data.feature_scale has no rgb, which is among data.features"):
        build_points_test(config(root, features=("rgb",)), batch_size=6)
    write_ply(root / "train/flat/0.ply", np.ones((9, 3)), color=False)
    splits = build(root, features=("rgb",), val_fraction=0.0)
    list(splits.train)
    assert "it has no feature rgb with a row for each point; it has: intensity" in splits.skipped()[0][1]


def test_colors_of_files_of_every_depth(tmp_path):
    """Of 8 and 16 bits, floats to 1 and to 255: all in [0, 1], in training and in prediction."""
    gray, root = np.linspace(0, 1, 30)[:, None].repeat(3, 1), tmp_path
    for split in ("train", "test"):
        for name in TILT:
            pos = np.random.default_rng(0).normal(size=(30, 3))
            (root / split / name).mkdir(parents=True)
            np.savetxt(root / split / name / "a.txt", np.c_[pos, gray * 255], header="x y z r g b")
            np.savez(root / split / name / "b.npz", pos=pos, rgb=gray.astype(np.float32))
            np.savez(root / split / name / "c.npz", pos=pos, rgb=(gray * 65535).astype(np.uint16))
            np.savez(root / split / name / "d.npz", pos=pos, rgb=(gray * 255).astype(np.uint8))
            np.savez(root / split / name / "e.npz", pos=pos, rgb=(gray * 200).astype(np.uint16))  # dark, of 16 bits
    splits = build(root, features=("rgb",), points=None, shuffle=False, val_fraction=0.0)
    assert splits.config.feature_scale == {"rgb": 65535}
    found = [cloud.feat[:, 0] for points, _ in splits.test for cloud in points.unbind()]
    for i, feat in enumerate(found):
        assert torch.allclose(feat, torch.linspace(0, 200 / 65535 if i % 5 == 4 else 1, 30), atol=0.005), i
    read = read_for(root / "test/flat/c.npz", splits.config)
    assert torch.equal(read.feat[:, 0], found[2])


def test_colors_divided_by_a_number_of_ones_own(tmp_path):
    splits = build(clouds(tmp_path), features=("rgb",), points=None, feature_scale={"rgb": 100.0})
    assert max(points.feat.max() for points, _ in splits.test) > 0.6


@pytest.mark.parametrize("cache", [False, True])
def test_points_that_are_not_finite(tmp_path, cache):
    root = clouds(tmp_path)
    pos = np.random.default_rng(0).normal(size=(50, 3))
    pos[3], pos[7, 1] = np.nan, np.inf
    write_ply(root / "test/flat/0.ply", pos)
    refused = build(root, cache=cache)
    assert sum(len(t) for _, t in refused.test) == 5
    assert "NaN or infinite" in dict(refused.skipped())[str(root / "test/flat/0.ply")]
    with pytest.warns(UserWarning, match="0.ply: 2 points dropped, NaN or infinite .data.nan drop"):
        dropped = build(root, cache=cache, nan="drop")
        assert sum(len(t) for _, t in dropped.test) == 6
    assert next(iter(dropped.test))[0].ptr.diff()[0] == 48


def write_laz(path: Path, pos: np.ndarray) -> None:
    laspy = pytest.importorskip("laspy", reason="laspy is not installed")
    pytest.importorskip("lazrs", reason="lazrs is not installed")
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [0.001] * 3, np.floor(pos.min(0))
    las = laspy.LasData(header)
    las.x, las.y, las.z = pos.T
    las.write(str(path))


def write_off(path: Path, pos: np.ndarray) -> None:
    pytest.importorskip("trimesh", reason="trimesh is not installed")
    lines = ["OFF", f"{len(pos)} {len(pos) - 2} 0", *(f"{x!r} {y!r} {z!r}" for x, y, z in pos.tolist())]
    path.write_text("\n".join([*lines, *(f"3 {i} {i + 1} {i + 2}" for i in range(len(pos) - 2)), ""]))


def clouds_of_four_kinds(root: Path, offset: np.ndarray) -> Path:
    """Clouds of 5 to 3000 points, the same but for their place."""
    rng, place = np.random.default_rng(0), np.array([500_000, 4_500_000, 80])
    for split, count in (("train", 8), ("test", 4)):
        for name, sides in TILT.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                size = (5, 50, 300, 3000)[(i + i // 4) % 4]
                pos = (rng.normal(size=(size, 3)) * sides + place) - place + offset  # exact at either place
                file = root / split / name / f"{i}"
                if i % 4 == 0:
                    write_ply(file.with_suffix(".ply"), pos)
                elif i % 4 == 1:
                    write_laz(file.with_suffix(".laz"), pos)
                elif i % 4 == 2:
                    np.savetxt(file.with_suffix(".txt"), pos, fmt="%.17g")
                else:
                    write_off(file.with_suffix(".off"), pos)
    return root


@pytest.mark.filterwarnings("ignore:.*fewer points than data.points")
def test_four_kinds_of_file_give_the_same_batches_wherever_they_lie(tmp_path):
    found = []
    for name, offset in (("map", (500_000, 4_500_000, 80)), ("origin", (0, 0, 0))):
        root = clouds_of_four_kinds(tmp_path / name, np.array(offset))
        splits = build(root, rotate=180, surface_points=200, val_fraction=0.25)
        found.append([batch for part in (splits.train, splits.val, splits.test) for batch in part])
        assert not splits.skipped()
    assert len(found[0]) == 3 + 1 + 2
    for (points, targets), (others, other_targets) in zip(*found, strict=True):
        assert torch.equal(points.pos, others.pos) and torch.equal(targets, other_targets)


@pytest.mark.parametrize("sampled", [{"points": None}, {"points": 16}])
def test_place_on_a_map_changes_nothing(tmp_path, monkeypatch, sampled):
    """Whole-number offsets in double precision: the same weights and results, bit for bit."""
    monkeypatch.setattr("pointmix.engine.finish.draw_pictures", lambda run, metrics: None)
    found = []
    for name, offset in (("map", (500_000, 4_500_000, 80)), ("origin", (0, 0, 0))):
        data = config(clouds(tmp_path / name, offset=offset), features=("rgb", "intensity"), rotate=180, **sampled)
        cfg = ClassifyPointsConfig(
            data=data,
            model=ModelConfig("coc_tiny", COC),
            output_dir=str(tmp_path / f"run_{name}"),
            batch_size=4,
            steps=3,
        )
        metrics = train(cfg)
        model, info = load_run(cfg.output_dir)
        assert info["extent"] > 1 and info["data"]["feature_scale"]["rgb"] == 255
        found.append((model.state_dict(), metrics["test"], info["extent"]))
    (weights, test, extent), (others, other_test, other_extent) = found
    assert all(torch.equal(value, others[key]) for key, value in weights.items())
    assert json.dumps(test) == json.dumps(other_test) and extent == pytest.approx(other_extent)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="data.root: no folder .*gone; expected one with train/CLASS"):
        build(tmp_path / "gone")
    with pytest.raises(ValueError, match="data.root is not set; expected the folder of folder"):
        build_points(PointDataConfig(source="folder"), **CALL)
    root = clouds(tmp_path / "data")
    (root / "train/empty").mkdir()
    (root / "train/empty/a.docx").touch()
    with pytest.raises(ValueError, match="no cloud in class folder empty of .*train; expected files ending in .*.ply"):
        build(root)
    (root / "train/empty/a.docx").unlink()
    (root / "train/empty").rmdir()
    clouds(root / "more")
    (root / "more/test/flat").rename(root / "test/other")
    with pytest.raises(ValueError, match="test has class other, which is not among flat, tall"):
        build(root)
    (root / "test").rename(root / "tests")
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*/test, expected test/CLASS/\* or labels.csv .*it has more, tests"
    ):
        build(root)


def test_a_test_split_without_a_class(tmp_path):
    root = clouds(tmp_path)
    for file in (root / "test/flat").iterdir():
        file.unlink()
    (root / "test/flat").rmdir()
    splits = build(root)
    assert splits.classes == ["flat", "tall"]
    assert {int(t) for _, targets in splits.test for t in targets} == {1}


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,label,split\ngone.ply,a,train\n", "labels.csv, line 2: no file .*gone.ply"),
        (
            "file,kind,split\na.ply,a,train\n",
            "labels.csv has no column label or class or target; its header has file, kind",
        ),
        ("file,label,split\na.ply,a,train\nb.ply,b,test\n", "labels.csv: split train has no file of class b"),
        ("file,label,split\na.ply,a,train\nc.docx,a,test\n", "names files of unknown kind .1 .docx.; expected .*.ply"),
        ("file,label,split\na.ply,a,train\n", "labels.csv has no files of split "),
    ],
)
def test_bad_lists(tmp_path, text, message):
    for name in "ab":
        write_ply(tmp_path / f"{name}.ply", np.random.default_rng(0).normal(size=(30, 3)))
    (tmp_path / "c.docx").touch()
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        build_points(config(tmp_path, val_fraction=0.0), batch_size=1, eval_batch_size=1, seed=0)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_skipped_and_named(tmp_path):
    root = clouds(tmp_path)
    (root / "test/flat/0.ply").write_bytes(
        b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n1 2"
    )
    splits = build(root)
    assert sum(len(t) for _, t in splits.test) == 5 and "the file is cut off" in splits.skipped()[0][1]
    with pytest.raises(UnreadableSample, match="0.ply: .*data.strict refuses damaged clouds"):
        list(build(root, strict=True).test)


@pytest.mark.parametrize("model", ["coc_tiny", "pointmlp_elite"])
def test_clouds_of_one_point(model):
    """Networks take clouds of fewer points than their neighborhoods and centers have."""
    import pointmix

    kwargs = COC if model == "coc_tiny" else dict(dim=8, expansion=[2, 2], pre_blocks=[1, 1], pos_blocks=[1, 1])
    network = pointmix.create_model(model, num_classes=2, in_chans=0, coord_dims=3, **kwargs).eval()
    sets = [PointSet.from_points(torch.rand(n, 3)) for n in (1, 2, 30)]
    with torch.no_grad():
        together, alone = network(PointSet.cat(sets)), torch.cat([network(points) for points in sets])
    torch.testing.assert_close(together, alone)
