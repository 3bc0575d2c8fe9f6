"""Folders and lists of images and masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointmix.data.segment.source import SegmentSource
from pointmix.io.errors import BadMask, UnreadableSample
from tests.data.segment.images.files import SIZE, open_source, stripes, write_image, write_mask


def write_split(root, split="train", names=("a", "b/c"), masks="masks", classes=3):
    for name in names:
        write_image(root / "images" / split / f"{name}.jpg")
        write_mask(root / masks / split / f"{name}.png", stripes(classes))


@pytest.fixture
def root(tmp_path):
    write_split(tmp_path)
    write_split(tmp_path, "val", names="d")
    (tmp_path / "classes.txt").write_text("sky\nroad\ntree\n")
    return tmp_path


def test_images_and_their_masks(root):
    source = open_source("folder", "train", root)
    assert isinstance(source, SegmentSource) and len(source) == 2 and source.classes == ("sky", "road", "tree")
    assert source.palette is None and source.categories is None
    assert [source.name(i) for i in range(2)] == [str(root / f"images/train/{name}.jpg") for name in ("a", "b/c")]
    sample = source.read(1)
    assert sample.image.mode == "RGB" and sample.image.size == SIZE[::-1]
    assert (sample.label == stripes(3)).all() and sample.depth is None
    assert open_source("folder", "train", root, in_chans=1).read(0).image.mode == "L"


@pytest.mark.parametrize("masks", ["annotations", "labels"])
def test_other_names_of_the_folder_of_masks(tmp_path, masks):
    write_split(tmp_path, masks=masks)
    assert (open_source("folder", "train", tmp_path, classes=tuple("xyz")).read(0).label == stripes(3)).all()


def test_without_a_test_split_val_is_tested_on(root):
    assert open_source("folder", "val", root) is None
    assert open_source("folder", "test", root).name(0).endswith("val/d.jpg")
    write_split(root, "test", names="e")
    assert open_source("folder", "val", root).name(0).endswith("val/d.jpg")
    assert open_source("folder", "test", root).name(0).endswith("test/e.jpg")


def test_lists(root):
    (root / "train.txt").write_text("images/train/b/c.jpg masks/train/b/c.png\n")
    source = open_source("folder", "train", root)
    assert len(source) == 1 and (source.read(0).label == stripes(3)).all()
    (root / "train.txt").write_text("images/train/a.jpg,masks/train/a.png\nimages/no.jpg,masks/train/a.png\n")
    with pytest.raises(FileNotFoundError, match="line 2: no file .*no.jpg"):
        open_source("folder", "train", root)
    (root / "train.txt").write_text("images/train/a.jpg\n")
    with pytest.raises(ValueError, match="line 1: 'images/train/a.jpg'"):
        open_source("folder", "train", root)
    (root / "train.txt").write_text("\n")
    with pytest.raises(ValueError, match="train.txt is empty"):
        open_source("folder", "train", root)
    (root / "train.txt").write_text("images/train/a.jpg masks/train/a.png\nimages/./train/a.jpg masks/train/a.png")
    with pytest.raises(ValueError, match="train.txt names an image twice"):
        open_source("folder", "train", root)


def test_lists_from_other_systems_and_with_full_paths(root):
    (root / "images/train/a.jpg").rename(root / "images/train/ä 1.JPG")
    (root / "train.txt").write_bytes(f"\ufeff{root}/images/train/ä 1.JPG\tmasks/train/a.png\r\n\r\n".encode())
    source = open_source("folder", "train", root)
    assert len(source) == 1 and (source.read(0).label == stripes(3)).all()
    (root / "train.txt").write_text("images/train/ä 1.JPG masks/train/a.png\n")
    with pytest.raises(ValueError, match="line 1: .*expected an image and a mask, with a tab or a comma"):
        open_source("folder", "train", root)


def test_an_image_in_two_splits(root):
    (root / "train.txt").write_text(f"{root}/images/val/d.jpg masks/val/d.png\n")
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="images/val/d.jpg is in both train and val .and 0 more"):
            open_source("folder", split, root)


def test_hidden_files_are_skipped(root):
    write_image(root / "images/train/._a.jpg")
    write_image(root / "images/train/@eaDir/a.jpg")
    (root / "images/train/Thumbs.db").write_bytes(b"x")
    (root / "images/train/notes.txt").write_text("x")
    assert len(open_source("folder", "train", root)) == 2


def test_links_to_folders_are_followed(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for kind in ("images", "masks"):
        (root / kind / "train/b").rename(other / kind)
        (root / kind / "train/b").symlink_to(other / kind)
        (other / kind / "round").symlink_to(root / kind / "train")
    source = open_source("folder", "train", root)
    assert [source.name(i) for i in range(len(source))] == [str(root / f"images/train/{n}.jpg") for n in ("a", "b/c")]


def test_an_image_without_a_mask_and_the_reverse(root):
    write_image(root / "images/train/lonely.jpg")
    with pytest.raises(ValueError, match="1 image files have no mask: .*lonely.jpg"):
        open_source("folder", "train", root)
    (root / "images/train/lonely.jpg").unlink()
    (root / "images/train/a.jpg").unlink()
    with pytest.raises(ValueError, match="1 mask files have no image: .*a.png"):
        open_source("folder", "train", root)


def test_two_images_of_one_name(root):
    write_image(root / "images/train/a.png")
    with pytest.raises(ValueError, match="differ only in their suffix"):
        open_source("folder", "train", root)


@pytest.mark.parametrize(
    ("classes", "text", "words"),
    [
        ((), None, "data.classes is empty"),
        (None, None, "class names are not known"),
        (None, "", "class names are not known"),
        (("a", "b", "a"), None, "class a is named twice"),
        (("a", "", "b"), None, "class 1 has an empty name"),
        (("a", "b"), "sky\nroad\ntree", None),
    ],
)
def test_classes(root, classes, text, words):
    (root / "classes.txt").unlink()
    if text is not None:
        (root / "classes.txt").write_text(text)
    if words is None:  # those of the setting count
        assert open_source("folder", "train", root, classes=classes).classes == classes
    else:
        with pytest.raises(ValueError, match=words):
            open_source("folder", "train", root, classes=classes)


def test_merged_classes_need_names(root):
    source = open_source("folder", "train", root, classes=("nature", "road"), label_map={0: 0, 1: 1, 2: 0})
    assert (source.read(0).label == np.array([0, 1, 0])[stripes(3)]).all()
    with pytest.raises(ValueError, match="data.label_map has classes up to 1, expected 0 to 2"):
        open_source("folder", "train", root, label_map={0: 0, 1: 1, 2: 0})


def test_masks_in_color(root):
    for name in ("a", "b/c"):
        write_mask(root / f"masks/train/{name}.png", np.eye(3, dtype=np.uint8)[stripes(3)] * 100)
    with pytest.raises(BadMask, match="--data.palette_file"):
        open_source("folder", "train", root).read(0)
    (root / "palette.txt").write_text("0 100 0 road\n100 0 0 sky\n0 0 100\n")
    source = open_source("folder", "train", root, palette_file=str(root / "palette.txt"))
    assert source.classes == ("road", "sky") and list(source.palette) == [(0, 100, 0), (100, 0, 0)]
    assert (source.read(0).label == np.array([1, 0, -1])[stripes(3)]).all()
    with pytest.raises(ValueError, match="classes of the data in another order, expected road, sky"):
        open_source("folder", "train", root, palette_file=str(root / "palette.txt"), classes=("sky", "road"))


def test_damaged_images_are_skipped_and_misfits_are_not(root):
    whole = (root / "images/train/a.jpg").read_bytes()
    (root / "images/train/a.jpg").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(UnreadableSample) as error:
        open_source("folder", "train", root).read(0)
    assert not isinstance(error.value, BadMask)
    write_image(root / "images/train/a.jpg", (7, 8))
    with pytest.raises(BadMask, match="a.png is 6x8, the image is 7x8"):
        open_source("folder", "train", root).read(0)


def test_an_image_turned_by_its_exif_fits_an_upright_mask(root):
    image = Image.new("RGB", (6, 8), "red")  # lies on its side
    exif = Image.Exif()
    exif[274] = 6
    image.save(root / "images/train/a.jpg", exif=exif)
    sample = open_source("folder", "train", root).read(0)
    assert sample.image.size == (8, 6) and sample.label.shape == (6, 8)


def test_missing_folders(tmp_path, root):
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_source("folder", "train", tmp_path / "none", classes=("a",))
    with pytest.raises(ValueError, match="data.root is not set"):
        open_source("folder", "train")
    (root / "images/train").rename(root / "images/other")
    with pytest.raises(FileNotFoundError, match="no train split: it has classes.txt, images, masks"):
        open_source("folder", "train", root)


def test_real_masks_in_a_list(tmp_path):
    if "POINTMIX_DATA" not in os.environ:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    data = Path(os.environ["POINTMIX_DATA"], "coco_mini")
    masks = sorted((data / "semantic_segmentation/masks/train2017").glob("*.png"))[:10]
    lines = [f"{data}/images/train2017/{mask.stem}.jpg\t{mask}" for mask in masks]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    source = open_source("folder", "train", tmp_path, classes=tuple(map(str, range(201))), ignore_index=0)
    for index, mask in enumerate(masks):
        values = np.asarray(Image.open(mask)).astype(int)
        assert (source.read(index).label == np.where(values == 0, -1, values)).all()
    few = open_source("folder", "train", tmp_path, classes=tuple(map(str, range(50))), ignore_index=0)
    with pytest.raises(BadMask, match="has no class: labels are 0 to 49, 0 ignored"):
        [few.read(index) for index in range(10)]
