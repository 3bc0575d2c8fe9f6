"""Labels for files, with a stand-in network."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.images.transforms import eval_transform
from pointmix.data.segment.resolve import resolve
from pointmix.data.segment.sample import LabeledImage
from pointmix.tasks.segment.flags import add_arguments
from pointmix.tasks.segment.predictor import SegmentPredictor
from tests.tasks.segment.standin import StandIn

CLASSES = ["sky", "road", "car", "tree"]
INFO = {"classes": CLASSES, "palette": None, "categories": None, "path": "the run"}


def predictor(cfg, files, *argv, model=None, **info):
    parser = ArgumentParser()
    parser.add_argument("files", nargs="+")
    add_arguments(parser, "predict")
    model = model or StandIn()
    return SegmentPredictor(model, INFO | info, cfg, parser.parse_args([*map(str, files), *map(str, argv)]))


def images(**changes):
    return resolve(SegmentDataConfig(source="scenes", in_chans=3, mean=(0.5,), std=(0.2,), **changes))


def clouds(features=("rgb", "intensity"), **changes):
    cfg = resolve(SegmentDataConfig(source="files", root=".", classes=tuple(CLASSES), features=features))
    return dataclasses.replace(cfg, feature_scale=dict.fromkeys(features, 1.0), **changes)


def save_image(path, size=(12, 9), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(pixels).save(path)
    return path


def save_cloud(path, number=40, *, far=0.0, **more):
    rng = np.random.default_rng(0)
    arrays = {"xyz": rng.random((number, 3)) + far, "rgb": rng.random((number, 3)), "intensity": rng.random(number)}
    np.savez(path, **(arrays | more))
    return path


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_the_table_alone_may_be_written(tmp_path):
    file = save_image(tmp_path / "a.png")
    made = predictor(images(), [file], "--out", tmp_path / "shares.csv")
    assert made.predict(str(file)) and made.finish() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]  # predict.py writes the table


def test_images_become_palette_images_overlays_and_shares(tmp_path):
    file, out, cfg = save_image(tmp_path / "a.png"), tmp_path / "out" / "deep", images()
    made = predictor(cfg, [file], "--out", out, "--confidence", "--topk", 2)
    rows = made.predict(str(file))
    with Image.open(file) as image:
        points = eval_transform(cfg)(LabeledImage(image, np.zeros((9, 12), int))).points
    scores = made.model(points).softmax(1)
    label = scores.argmax(1).view(9, 12)
    assert (pixels(out / "a_labels.png") == label.numpy()).all()
    assert np.abs(pixels(out / "a_confidence.png") - 255 * scores.amax(1).view(9, 12).detach().numpy()).max() <= 0.5
    assert pixels(out / "a_overlay.png").shape[2] == 3
    share = torch.bincount(label.flatten(), minlength=4) / 108
    first = share.topk(2)
    assert [name for name, _ in rows] == [CLASSES[k] for k in first.indices.tolist()]
    assert [value for _, value in rows] == pytest.approx(first.values.tolist())
    assert made.finish() == [f"labels of 1 file in {out}"] and len(list(out.iterdir())) == 3


def test_without_out_nothing_is_written(tmp_path):
    file = save_image(tmp_path / "a.png")
    made = predictor(images(), [file])
    assert made.predict(str(file)) and made.finish() == []
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("argv", [["--flip"], ["--sliding", "5", "5"], ["--scales", "0.5", "1"]])
@pytest.mark.parametrize("size", [(12, 9), (1, 1)])
def test_any_inference_and_an_image_of_one_pixel(tmp_path, argv, size):
    file = save_image(tmp_path / "a.png", size)
    made = predictor(images(short_side=6), [file], "--out", tmp_path / "out", *argv)
    made.predict(str(file))
    assert pixels(tmp_path / "out" / "a_labels.png").shape == size[::-1]


def test_hidden_pixels_have_no_label(tmp_path):
    file, mask = save_image(tmp_path / "a.png"), np.zeros((9, 12), np.uint8)
    mask[2:7, 3:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    made = predictor(
        images(keep_ratio=0.5), [file], "--mask", tmp_path / "mask.png", "--out", tmp_path / "out", "--flip"
    )
    made.predict(str(file))
    assert ((pixels(tmp_path / "out" / "a_labels.png") == 255) == (mask == 0)).all()
    assert len(made.model.calls[0].feat) == 25
    other = save_image(tmp_path / "b.png", (5, 5))
    with pytest.raises(ValueError, match="mask"):
        made.predict(str(other))


@pytest.mark.parametrize("far", [0.0, 3e6])
def test_clouds_get_the_features_by_name_and_keep_their_positions(tmp_path, far):
    plyfile = pytest.importorskip("plyfile")
    file = save_cloud(tmp_path / "a.npz", far=far, other=np.zeros(40))
    model = StandIn(4, dims=3)
    made = predictor(clouds(grid_size=0.3), [file], "--out", tmp_path / "out", model=model)
    made.predict(str(file))
    vertex = plyfile.PlyData.read(tmp_path / "out" / "a.ply")["vertex"]
    with np.load(file) as arrays:
        assert np.array_equal(np.stack([vertex[axis] for axis in "xyz"], 1), arrays["xyz"])
        feat = np.concatenate([arrays["rgb"], arrays["intensity"][:, None]], 1)
    expected = (torch.from_numpy(feat).float() @ model.weight.T).argmax(1)
    assert vertex["label"].tolist() == expected.tolist()
    np_out = predictor(clouds(), [file], "--out", tmp_path / "out", "--format", "npy", model=model)
    np_out.predict(str(file))
    assert np.load(tmp_path / "out" / "a.npy")["label"].tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["ply", "npy"])
def test_dropped_points_keep_their_rows_without_a_label(tmp_path, kind):
    file = save_cloud(tmp_path / "a.npz", 6)
    with np.load(file) as arrays:
        pos, intensity = arrays["xyz"].astype(np.float32), arrays["intensity"]
    pos[1, 2], intensity[4] = np.nan, np.inf
    save_cloud(file, 6, xyz=pos, intensity=intensity)
    model, out = StandIn(4, dims=3), tmp_path / "out"
    made = predictor(clouds(), [file], "--out", out, "--format", kind, "--nan", "drop", model=model)
    with pytest.warns(UserWarning, match="a.npz: 2 points dropped, NaN or infinite"):
        rows = made.predict(str(file))
    assert sum(share for _, share in rows) == pytest.approx(1) and len(model.calls[0].feat) == 4
    assert made.finish() == [f"labels of 1 file in {out}; 2 points dropped, label -1"]
    if kind == "npy":
        found = np.load(out / "a.npy")
    else:
        found = pytest.importorskip("plyfile").PlyData.read(out / "a.ply")["vertex"]
        assert np.array_equal(np.stack([found[axis] for axis in "xyz"], 1), pos, equal_nan=True)
        assert found["x"].dtype == "f4" and found["red"][[1, 4]].tolist() == [225, 225]
    good = [0, 2, 3, 5]
    assert found["label"][[1, 4]].tolist() == [-1, -1] and found["confidence"][[1, 4]].tolist() == [0, 0]
    scores = (model.calls[0].feat @ model.weight.T).softmax(1)
    assert found["label"][good].tolist() == scores.argmax(1).tolist()
    assert found["confidence"][good] == pytest.approx(scores.amax(1).detach().numpy())
    run = dataclasses.replace(clouds(), nan="drop")  # as the run says, which the flag overrides
    with pytest.warns(UserWarning, match="2 points dropped"):
        predictor(run, [file], model=model).predict(str(file))
    with pytest.raises(ValueError, match="a.npz: the positions are NaN or infinite at 1 of 6 points"):
        predictor(run, [file], "--nan", "refuse", model=model).predict(str(file))


def test_a_cloud_of_many_and_columns_without_a_name(tmp_path):
    many, text, model = tmp_path / "many.npy", tmp_path / "a.txt", StandIn(3, dims=3)
    rng = np.random.default_rng(0)
    np.save(many, rng.random((2, 5, 3)))
    np.savetxt(text, rng.random((5, 6)))
    with pytest.raises(ValueError, match="many.npy: it holds 2 clouds, give the index of one"):
        predictor(clouds(features=()), [many], model=model).predict(str(many))
    bare = StandIn(0, dims=3, place=1.0)
    predictor(clouds(features=()), [many], "--index", "1", model=bare).predict(str(many))
    made = predictor(clouds(features=("rgb",)), [text], "--columns", "rgb", model=model)
    made.predict(str(text))
    assert model.calls[-1].feat.shape == (5, 3)
    trained = clouds(features=("rgb",), columns=("rgb",))  # as the run says
    predictor(trained, [text], model=model).predict(str(text))
    assert torch.equal(model.calls[-1].feat, model.calls[-2].feat)


def test_another_unit_than_in_training_is_warned_of_once(tmp_path):
    files = [save_cloud(tmp_path / name, far=far) for name, far in (("a.npz", 0), ("b.npz", 5e5))]
    made = predictor(clouds(), files, model=StandIn(4, dims=3), extent=1700.0)
    with pytest.warns(UserWarning, match="from corner to corner, the training data 1.7e.03; are the units") as warned:
        for file in files:
            made.predict(str(file))
    assert len(warned) == 1
    made = predictor(clouds(normalize="none"), files, model=StandIn(4, dims=3), extent=1.7)
    with pytest.warns(UserWarning, match="b.npz: up to 500001 from the origin") as warned:
        for file in files:
            made.predict(str(file))
    assert len(warned) == 1


def test_parts_are_those_of_the_category(tmp_path):
    file, model = save_cloud(tmp_path / "a.npz", 1), StandIn(4, dims=3, categories=2)
    model.weight.data.zero_()
    categories = {"chair": [0, 1], "lamp": [2, 3]}
    made = predictor(clouds(), [file], "--category", "lamp", model=model, categories=categories)
    assert made.predict(str(file)) == [("car", 1.0)]  # of equal scores the first, among its parts
    model.weight.data[0] = 1e6  # the probabilities of a lamp's parts round to 0
    assert made.predict(str(file)) == [("car", 1.0)]
    for argv, message in (([], "no --category: expected one of chair, lamp"), (["--category", "sofa"], "'sofa'")):
        with pytest.raises(ValueError, match=message):
            predictor(clouds(), [file], *argv, model=model, categories=categories)
    with pytest.raises(ValueError, match="--category lamp: the network has no categories"):
        predictor(clouds(), [file], "--category", "lamp")


def test_depth_images_of_a_folder_or_a_file(tmp_path):
    cfg = resolve(SegmentDataConfig(source="rgbd", root=".", mean=(0.5,), std=(0.2,)))
    lattice, cloud = (dataclasses.replace(cfg, rgbd=kind) for kind in ("lattice", "cloud"))
    file, depth = save_image(tmp_path / "x" / "1_rgb.png"), np.full((9, 12), 1500, np.uint16)
    depth[:3] = 0
    Image.fromarray(depth).save(tmp_path / "x" / "1_depth.png")
    for where in ("x", "x/1_depth.png"):
        made = predictor(cfg, [file], "--depth", tmp_path / where, "--out", tmp_path / "o", model=StandIn(4))
        made.predict(str(file))
        assert made.model.calls[0].feat[-1, 3] == (1.5 - cfg.depth_mean) / cfg.depth_std
    made = predictor(lattice, [file], "--depth", tmp_path / "x", "--out", tmp_path / "l", model=StandIn(4))
    made.predict(str(file))
    assert ((pixels(tmp_path / "l" / "1_rgb_labels.png") == 255) == (depth == 0)).all()
    camera = ["--intrinsics", 10, 10, 5, 4]
    cloud = dataclasses.replace(cloud, features=("rgb",), feature_scale={"rgb": 255.0}, normalize="center", up="y")
    made = predictor(cloud, [file], "--depth", tmp_path / "x", *camera, "--out", tmp_path / "c", model=StandIn(dims=3))
    made.predict(str(file))
    assert (tmp_path / "c" / "1_rgb.ply").exists()
    with pytest.raises(ValueError, match="takes images with depth; give the depth image with --depth"):
        predictor(cfg, [file])
    with pytest.raises(FileNotFoundError, match="no depth image for .*b.png"):
        made.predict(str(save_image(tmp_path / "b.png")))
    Image.fromarray(depth[:5]).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="small.png is 5x12, the image is 9x12"):
        predictor(cfg, [file], "--depth", tmp_path / "small.png", model=StandIn(4)).predict(str(file))


@pytest.mark.parametrize(
    "cfg, name, message",
    [
        (images(), "a.npz", "a.npz is no image, the run takes images"),
        (images(), "text.png", "cannot read image .*text.png"),
        (images(), "none.png", "no image file .*none.png"),
        (clouds(), "a.png", "a.png is an image, the run takes clouds"),
        (clouds(), "text.npz", "text.npz: not a complete .npz archive"),
        (clouds(), "none.npz", "none.npz: no file"),
        (clouds(features=("rgb", "height")), "a.npz", "a.npz: it has no feature height .*: rgb, intensity"),
        (clouds(), "nan.npz", "nan.npz: the positions are NaN or infinite at 1 of 2 points; nan drop leaves them out"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, cfg, name, message):
    save_image(tmp_path / "a.png"), save_cloud(tmp_path / "a.npz")
    save_cloud(tmp_path / "nan.npz", 2, xyz=np.array([[0, 0, 0], [0, np.nan, 0]]))
    for text in ("text.png", "text.npz"):
        (tmp_path / text).write_text("nothing")
    made = predictor(cfg, [tmp_path / name], model=StandIn(4 if cfg.source == "files" else 3, dims=3))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        made.predict(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "cfg, argv, message",
    [
        (images(), ["--topk", "0"], "--topk must be at least 1, got 0"),
        (images(), ["--format", "las"], "--format must be one of ply, npy, got 'las'"),
        (images(), ["--confidence"], "--confidence is for images with --out"),
        (images(), ["--votes", "2"], "--votes 2 is for clouds"),
        (images(), ["--depth", "x"], "--depth is for images with depth, the run takes none"),
        (images(), ["--mask", "none.png"], "no mask file none.png"),
        (images(), ["--nan", "drop"], "--nan is for clouds, the run takes images"),
        (images(), ["--columns", "rgb"], "--columns is for clouds, the run takes images"),
        (images(short_side=4), ["--mask", __file__], "--mask with resized images"),
        (clouds(), ["--flip"], "--flip is for images"),
        (clouds(), ["--mask", __file__], "--mask is for images, the run takes clouds"),
        (clouds(), ["--out", __file__], "is a file, expected a folder"),
    ],
)
def test_wrong_flags(cfg, argv, message):
    with pytest.raises((ValueError, OSError), match=message):
        predictor(cfg, ["a"], *argv)


def test_outputs_that_are_not_finite(tmp_path):
    file, model = save_image(tmp_path / "a.png"), StandIn()
    model.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="a.png is not finite; are the weights whole"):
        predictor(images(), [file], "--out", tmp_path / "out", model=model).predict(str(file))
    assert not (tmp_path / "out").exists()
