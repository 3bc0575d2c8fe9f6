"""Sources registered from outside the package."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.data.clouds import source as cloud_source
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.named import NamedCloud
from pointmix.data.clouds.splits import build_points, build_points_test
from pointmix.data.dataset import SourceDataset, collate
from pointmix.data.images import source as image_source
from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import ImageSource
from pointmix.data.images.splits import build_data
from pointmix.data.source import SourceRegistry
from pointmix.io.errors import UnreadableSample

CALL = {"batch_size": 4, "eval_batch_size": 4, "seed": 0}


class Cubes:
    """Twelve cubes and balls; one of them is damaged."""

    classes = ["cube", "ball"]

    def __init__(self) -> None:
        self.targets = np.arange(12) % 2

    def read(self, index: int) -> NamedCloud:
        if index == 5:
            raise UnreadableSample("made up")
        xyz = np.random.default_rng(index).uniform(-1, 1, (40 + index, 3)).astype(np.float32)
        return NamedCloud(xyz / np.abs(xyz).max(1, keepdims=True) if index % 2 == 0 else xyz, {})

    def name(self, index: int) -> str:
        return f"cubes/{index}"


@pytest.fixture
def cubes(monkeypatch):
    monkeypatch.setattr(cloud_source.SOURCES, "_entries", dict(cloud_source.SOURCES._entries))
    opened = []

    @cloud_source.register_source("cubes")
    def open_cubes(config: PointDataConfig, split: str) -> Cubes:
        opened.append((config.root, split))
        return Cubes()

    return opened


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("sampling", ["first", "random", "fps"])
def test_a_source_of_clouds(cubes, sampling, workers):
    config = PointDataConfig(source="cubes", points=32, sampling=sampling, workers=workers, val_fraction=0.0)
    splits = build_points(config, **CALL)
    assert cubes == [(None, "train"), (None, "test")] and splits.classes == ["cube", "ball"]
    batches = list(splits.train)
    assert len(batches) == 3
    assert all(points.ptr.diff().tolist() == [32] * 4 and len(targets) == 4 for points, targets in batches)
    test = list(splits.test)  # whole where points are drawn at random
    assert torch.cat([targets for _, targets in test]).tolist() == [i % 2 for i in range(12) if i != 5]
    if sampling == "first":
        assert np.array_equal(test[0][0].pos[:32], Cubes().read(0).pos[:32])
    assert splits.skipped() == [("cubes/5", "made up")]
    assert build_points_test(config, batch_size=4)[1] == ["cube", "ball"]


def test_a_source_that_needs_a_root(cubes):
    cloud_source.register_source("files", check=cloud_source.require_root())(lambda config, split: Cubes())
    with pytest.raises(ValueError, match="data.root is not set; expected the folder of files$"):
        build_points(PointDataConfig(source="files"), **CALL)
    assert build_points(PointDataConfig(source="files", root="x", points=8), **CALL).classes == ["cube", "ball"]


@pytest.mark.parametrize(
    "config, unused",
    [
        (PointDataConfig(keys={"pos": "vertices"}), "keys is set, but data.source is shapes"),
        (PointDataConfig(source="scanobjectnn", root="x", columns=("rgb",)), "columns is set, but data.source is sc"),
        (
            PointDataConfig(source="modelnet40", root="x", surface_points=0),
            "surface_points is set, but data.source is m",
        ),
        (
            PointDataConfig(source="modelnet40", root="x", target_key="kind"),
            "target_key is set, but data.source is mod",
        ),
        (DataConfig(input_key="photo"), "input_key is set, but data.source is digits"),
        (DataConfig(source="wds/x", root="x", target_key="kind"), "target_key is set, but data.source is wds/x"),
        (
            DataConfig(source="torch/cifar10", root="x", labels="a.csv"),
            "labels is set, but data.source is torch/cifar10",
        ),
        (DataConfig(source="folder", root="x", download=True), "download is set, but data.source is folder"),
    ],
)
def test_settings_of_other_sources_are_refused(config, unused):
    build = build_points if isinstance(config, PointDataConfig) else build_data
    with pytest.raises(ValueError, match=f"^data.{unused}.*, which does not use it$"):
        build(config, **CALL)


def test_a_source_of_ones_own_may_use_any_setting(cubes):
    config = PointDataConfig(source="cubes", points=8, keys={"pos": "p"}, labels="a.csv", target_key="kind")
    assert build_points(config, **CALL).config.keys == {"pos": "p"}


def test_splits_of_different_classes_are_refused(cubes):
    def opened(config: PointDataConfig, split: str) -> Cubes:
        source = Cubes()
        source.classes = ["cube", "ball"] if split == "train" else ["cube", "cone"]
        return source

    cloud_source.register_source("other")(opened)
    with pytest.raises(ValueError, match="train and test have different classes: ball only in train; cone only in t"):
        build_points(PointDataConfig(source="other"), **CALL)


def test_a_source_of_images(monkeypatch):
    monkeypatch.setattr(image_source.SOURCES, "_entries", dict(image_source.SOURCES._entries))

    @image_source.register_source("grays/NAME", defaults={"img_size": 6, "in_chans": 1})
    def open_grays(config: DataConfig, split: str | None) -> ImageSource:
        def read(index: int) -> Image.Image:
            return Image.new("L", (6, 6), index)

        return ImageSource(
            ["dark", "light"], np.arange(20) // 10, read, lambda index: f"{config.source}/{split}/{index}"
        )

    splits = build_data(DataConfig(source="grays/ten"), **CALL)
    assert (splits.img_size, splits.in_chans, splits.config.hflip) == (6, 1, 0.5)
    images, targets = next(iter(splits.test))
    assert images.to("cpu").shape == (4, 1, 6, 6) and targets.tolist() == [0] * 4
    assert splits.test.dataset.source.name(3) == "grays/ten/None/3"


def test_a_name_is_registered_once():
    registry: SourceRegistry[object, str, str] = SourceRegistry()
    registry.register("a/NAME")(lambda config, split: None)
    with pytest.raises(ValueError, match="a data source 'a' is registered already"):
        registry.register("a")
    assert "a/b" in registry and "b" not in registry and list(registry) == ["a/NAME"]
    with pytest.raises(
        ValueError, match="data.source 'b': expected one of a/NAME, or a source that your own module registers"
    ):
        registry.find("b")


def test_targets_keep_their_type():
    class Numbers:
        classes: list[str] = []

        def __init__(self, targets):
            self.targets = targets

        def read(self, index):
            return index

        def name(self, index):
            return str(index)

    for targets, dtype in ((np.array([0.25, 0.5]), torch.float32), (np.array([3, 4], np.uint8), torch.int64)):
        dataset = SourceDataset(source=Numbers(targets), indices=np.arange(2), transform=lambda x: x, seed=None)
        collated = collate(dataset.__getitems__([(0, 0), (0, 1)]), join=list)
        (inputs, found), failures = collated.batch, collated.failures
        assert found.dtype == dtype and found.tolist() == targets.tolist() and (inputs, failures) == ([0, 1], [])


def test_only_sources_with_a_prefix_take_a_longer_name():
    registry = SourceRegistry()
    registry.register("digits")(lambda config, split: None)
    registry.register("hfds/NAME")(lambda config, split: None)
    assert "digits" in registry and "hfds/mnist" in registry and "digits/typo" not in registry
    with pytest.raises(ValueError, match="data.source 'digits/typo': expected one of digits, hfds/NAME"):
        registry.find("digits/typo")


def test_classification_refuses_targets_that_are_no_labels():
    registry = SourceRegistry()

    @registry.register("heights")
    def open_heights(config, split):
        return SimpleNamespace(targets=np.array([0.25, 0.5]))

    with pytest.raises(ValueError, match="data.source 'heights' has targets of type float64, expected int64 labels"):
        registry.open_labeled("heights", None, "train")


def test_a_source_that_reads_something_else_is_told(cubes, monkeypatch):
    monkeypatch.setattr(Cubes, "read", lambda self, index: PointSet.from_points(torch.rand(40, 3)))
    with pytest.raises(TypeError, match="cubes/0 is a PointSet, expected a NamedCloud"):
        build_points(PointDataConfig(source="cubes", points=32), **CALL)
