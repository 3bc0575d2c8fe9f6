"""Classification of images: cross-entropy with mixing and smoothing, top-1 and top-5."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from pointmix.data.images.config import DataConfig, is_partial, keep_range
from pointmix.data.images.normalize import hide
from pointmix.data.images.partial import partial_points
from pointmix.data.images.resolve import resolve
from pointmix.io.image_files import MODES, decode
from pointmix.pointset import PointSet
from pointmix.tasks.base import Command, register_task
from pointmix.tasks.checks import try_input
from pointmix.tasks.classification.loss import ClassificationLoss, loss_weights
from pointmix.tasks.classification.metrics import TopAccuracy
from pointmix.tasks.classification.predictor import ClassPredictor
from pointmix.tasks.classification.task import (
    CLUSTERS,
    ClassificationTask,
    are_numbers,
    check_classes,
    check_key,
    is_whole,
    one_of_each_class,
)
from pointmix.tasks.classify_images.config import ClassifyImagesConfig
from pointmix.tasks.classify_images.files import reader, whole_image
from pointmix.tasks.classify_images.flags import add_arguments
from pointmix.tasks.config import as_plain
from pointmix.tasks.page import is_page, write_page_of
from pointmix.tasks.protocols import Info, Measurement, Metrics, Picture

if TYPE_CHECKING:
    from pointmix.data.images.splits import ImageSplits

MAX_SIDE = 8192  # pixels
ImageBatch = tuple[Any, Tensor]  # bytes, on the device float32 (B, C, H, W); targets int64 (B,)


@register_task("classify_images")
class ClassifyImages(ClassificationTask[ClassifyImagesConfig, DataConfig, "ImageSplits", ImageBatch]):
    """Images of one size, whole or with hidden pixels, to classes. The info has "img_size", "mean" and "std", too."""

    config = ClassifyImagesConfig
    unit = "images"
    scores = TopAccuracy.scores
    monitor = "top1"
    pipeline_tag = "image-classification"
    curve_scores = ("top1",)
    setting = "mask"

    def build_splits(self, cfg: ClassifyImagesConfig, *, rank: int, world_size: int) -> ImageSplits:
        from pointmix.data.images.splits import build_data

        size = {"batch_size": cfg.batch_size, "eval_batch_size": cfg.batch_size}
        return build_data(cfg.data, **size, seed=cfg.seed, rank=rank, world_size=world_size)

    def info(self, cfg: ClassifyImagesConfig, splits: ImageSplits) -> Info:
        mean, std = ([float(v) for v in values] for values in (splits.mean, splits.std))
        info = {"classes": list(splits.classes), "in_chans": splits.in_chans, "img_size": splits.img_size}
        info["class_weights"] = loss_weights(cfg.loss, splits.train.samples, len(splits.classes))
        return info | {"mean": mean, "std": std, "data": as_plain(splits.config)}

    def build_model(self, info: Info) -> nn.Module:
        from timm.models import get_pretrained_cfg  # takes seconds to import, and so does what imports it

        from pointmix.models import create_model

        given = {"num_classes": len(info["classes"]), "in_chans": info["in_chans"]}
        known = get_pretrained_cfg(info["name"])
        if known is not None and known.fixed_input_size and "img_size" not in info["kwargs"]:
            given["img_size"] = info["img_size"]  # the network is built for one size
        return create_model(info["name"], **given, **info["kwargs"])

    def example_input(self, info: Info) -> Tensor:
        channels, size = info["in_chans"], info["img_size"]
        try:
            return torch.zeros(1, channels, size, size)
        except RuntimeError as e:
            raise ValueError(f"images of {channels}x{size}x{size} do not fit into memory") from e

    def check_model(self, model: nn.Module, cfg: ClassifyImagesConfig, info: Info) -> None:
        self.try_images(model, info, single=cfg.batch_size == 1)
        if is_partial(cfg.data):
            size = info["img_size"]
            masked = hide(torch.zeros(info["in_chans"], size, size), torch.eye(size, dtype=torch.bool))
            blank = self._prepare(info)(masked[None])
            what = "images with hidden pixels (data.keep_ratio, data.mask_root)"
            count = len(info["classes"])
            try_input(model, info["name"], blank, what=what, classes=count, single=cfg.batch_size == 1)

    def try_images(self, model: nn.Module, info: Info, *, single: bool = False) -> None:
        """Try the network on one blank image; see `try_input`."""
        what = "images of {in_chans}x{img_size}x{img_size}".format(**info)
        blank, count = self.example_input(info), len(info["classes"])
        try_input(model, info["name"], blank, what=what, classes=count, single=single)

    def build_loss(self, cfg: ClassifyImagesConfig, info: Info) -> ClassificationLoss:
        options = {"weights": info["class_weights"], "prepare": self._prepare(info)}
        return ClassificationLoss(len(info["classes"]), **asdict(cfg.mix), **options)

    def build_metric(self, info: Info) -> TopAccuracy:
        return TopAccuracy(prepare=self._prepare(info))

    def _prepare(self, info: Info) -> Callable[[Tensor], Tensor | PointSet]:
        """Makes the network's input of a batch on its device, mixed or not: itself, or its visible points."""
        mode = info["kwargs"].get("coord_mode", "inclusive")
        return _prepare(self.data_config(info), coord_mode=mode)

    def pictures(self, model: nn.Module, splits: ImageSplits, info: Info, test: Metrics) -> dict[str, Picture]:
        def draw(path: Any) -> None:
            from pointmix.explain import draw_clusters

            device = next(model.parameters()).device
            first = one_of_each_class(splits.test, lambda images: images.to(device), number=4)
            images = self._prepare(info)(torch.stack(list(first.values())))
            mean, std, classes = splits.mean, splits.std, splits.classes
            draw_clusters(model, images, path, mean=mean, std=std, classes=classes, labels=list(first))

        return super().pictures(model, splits, info, test) | {CLUSTERS: draw}

    # ---- trained networks -------------------------------------------------------------------------------------------

    def check_info(self, info: Info) -> None:
        super().check_info(info)
        for key in ("img_size", "mean", "std"):
            if key not in info:
                raise ValueError(f"its metadata has no {key!r}")
        size = info["img_size"]
        check_key(info, "img_size", is_whole(size) and 1 <= size <= MAX_SIDE, f"a number of pixels up to {MAX_SIDE}")
        check_key(info, "mean", are_numbers(info["mean"]), "a list of finite numbers")
        check_key(info, "std", are_numbers(info["std"], above=0), "a list of positive numbers")
        for key in ("mean", "std"):
            if len(info[key]) not in (1, info["in_chans"]):
                raise ValueError(f"{key} in its metadata has {len(info[key])} values for {info['in_chans']} channels")

    def data_config(self, info: Info) -> DataConfig:
        usual = {key: info[key] for key in ("img_size", "in_chans", "mean", "std") if key in info}
        data = {"source": "folder"} | info["data"] | usual | {"download": False}  # no network unless asked for here
        return resolve(super().data_config(info | {"data": data}))

    def open_named(
        self,
        name: str,
        *,
        checkpoint: str | None = None,
        kwargs: dict[str, Any] | None = None,
        data: DataConfig | None = None,
    ) -> tuple[nn.Module, Info]:
        from pointmix.data.images.splits import build_test
        from pointmix.tasks.classify_images.named import open_named

        classes = None if data is None else build_test(data, batch_size=1)[1]
        return open_named(name, checkpoint=checkpoint, kwargs=kwargs or {}, classes=classes)

    def add_arguments(self, parser: ArgumentParser, command: Command) -> None:
        add_arguments(parser, command)

    def measurements(
        self, model: nn.Module, info: Info, data: DataConfig, args: Namespace
    ) -> Iterator[Measurement[ImageBatch]]:
        data = resolve(data if args.mask is None else dataclasses.replace(data, mask=args.mask))
        shares = [data.keep_ratio] if args.keep is None else args.keep
        settings = [resolve(dataclasses.replace(data, keep_ratio=keep)) for keep in shares]
        return (self._measurement(model, info, cfg, args.batch_size) for cfg in settings)

    def _measurement(self, model: nn.Module, info: Info, cfg: DataConfig, batch_size: int) -> Measurement[ImageBatch]:
        from pointmix.data.images.splits import build_test

        test, classes = build_test(cfg, batch_size=batch_size)
        check_classes(info, classes)
        self.try_images(model, info | {"in_chans": cfg.in_chans, "img_size": cfg.img_size})
        if is_partial(cfg) and not hasattr(model, "explain"):
            raise ValueError(f"images with hidden pixels need a model of points; {info['name']} takes whole ones only")
        prepare = _prepare(cfg, coord_mode=getattr(model, "coord_mode", "inclusive"))
        low, high = keep_range(cfg.keep_ratio)
        settings = {
            "keep": low if low == high else [low, high],
            "mask": cfg.mask_root or (cfg.mask if low < 1 else None),
        }
        return Measurement(model, test, TopAccuracy(prepare=prepare), settings | {"num_classes": len(classes)})

    def curve_title(self, results: list[Metrics]) -> str:
        kinds = sorted({r["mask"] for r in results if r["mask"]})
        return f"masks of {', '.join(kinds)}" if kinds else "no masks"

    def transform(self, info: Info) -> Callable[[Image.Image], Tensor]:
        cfg = self.data_config(info)
        return lambda image: whole_image(decode(image.copy, MODES[info["in_chans"]]), cfg)

    def input_kind(self, info: Info) -> Literal["image"]:
        return "image"

    def build_predictor(self, model: nn.Module, info: Info, args: Namespace) -> ClassPredictor:
        cfg = self.data_config(info)

        def draw(inputs: list[Any], names: list[str], path: str) -> None:
            from pointmix.explain import draw_clusters

            x = PointSet.cat(inputs) if isinstance(inputs[0], PointSet) else torch.cat(inputs)
            classes, number = info["classes"], len(inputs)
            draw_clusters(model, x, path, mean=cfg.mean, std=cfg.std, classes=classes, max_images=number)

        return ClassPredictor(model, info, args, read=reader(model, info["name"], cfg, args), draw=draw)

    def reads(self, args: Namespace) -> bool:
        from pointmix.io import is_image

        return is_image(args.file)

    def explain(self, args: Namespace, run: tuple[nn.Module, Info] | None) -> None:
        if not self.reads(args):
            raise ValueError(f"{args.file} is no image, {args.run or args.model} takes images")
        model, info = run or self.open_named(args.model, checkpoint=args.checkpoint)
        model, cfg = model.to(args.device), self.data_config(info)
        x = reader(model, info["name"], cfg, args)(args.file).to(args.device)
        classes = info["classes"] if run or args.checkpoint else None
        if is_page(args):
            from pointmix.explain.page.scene import image_scene

            mode = getattr(model, "coord_mode", "inclusive")
            scene = image_scene(x, mean=cfg.mean, std=cfg.std, coord_mode=mode)
            write_page_of(args, model, scene, name=info["name"], classes=classes)
        else:
            from pointmix.explain import draw_clusters

            draw_clusters(model, x, args.out, mean=cfg.mean, std=cfg.std, classes=classes)


def _prepare(cfg: DataConfig, *, coord_mode: str) -> Callable[[Tensor], Tensor | PointSet]:
    return partial(partial_points, coord_mode=coord_mode) if is_partial(cfg) else lambda images: images
