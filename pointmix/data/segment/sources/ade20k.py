"""ADE20K as the scene parsing challenge of 2016 publishes it: 150 classes, label 0 is other objects."""

from __future__ import annotations

from pointmix.data.images.pairs import find_images, paired
from pointmix.data.paths import existing
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.image_files import ImageFiles, labeled_files
from pointmix.data.segment.source import register_segment_source

FOLDERS = {"train": "training", "test": "validation"}  # the labels of the test images are not public
CLASSES = (
    *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass"),
    *("cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair"),
    *("car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field"),
    *("armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion"),
    *("base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace"),
    *("refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table", "pillow", "screen door"),
    *("stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill"),
    *("bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar"),
    *("arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight"),
    *("booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister"),
    *("escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt"),
    *("canopy", "washer", "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag"),
    *("minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal"),
    *("bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce", "vase"),
    *("traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor", "bulletin board"),
    *("shower", "radiator", "glass", "clock", "flag"),
)


@register_segment_source("ade20k", kind="image", defaults={"reduce_zero_label": True})
def open_ade20k(config: SegmentDataConfig, split: str) -> ImageFiles | None:
    """ROOT/images/training, ROOT/annotations/training and so on; ROOT is the folder ADEChallengeData2016. The test
    split is the official validation split; there is none for "val".

    Raises:
        FileNotFoundError, ValueError: if folders or files are missing.
    """
    if split == "val":
        return None
    images, masks = f"images/{FOLDERS[split]}", f"annotations/{FOLDERS[split]}"
    root = existing(config.root, images, masks)
    return labeled_files(config, paired(find_images(root / images), find_images(root / masks)), classes=CLASSES)
