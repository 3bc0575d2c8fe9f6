"""Pictures of clusters, of made-up assignments and of a real model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import pointmix
from pointmix.explain import draw_clusters, images
from pointmix.explain.blocks import first_and_last, groups_nothing, truth_and_guess, wrapped
from pointmix.explain.images import label_maps, to_pictures
from pointmix.nn.stage import Assignment


def halves(size: int) -> tuple[pointmix.PointSet, Assignment]:
    """One image, one window, the left half in cluster 0 and the right half in cluster 1, on a lattice half as fine."""
    seen = pointmix.PointSet.from_image(torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)))
    fine = seen.pos.view(size // 2, 2, size // 2, 2, 2).mean((1, 3)).reshape(-1, 2)
    center = (fine[:, 1:] > 0).long()
    positions = torch.stack([fine[center[:, 0] == i].mean(0) for i in (0, 1)])
    points = pointmix.PointSet(fine, fine, torch.tensor([0, len(fine)]))
    return seen, Assignment("stages.0.blocks.0", center, torch.ones_like(center).float(), torch.zeros(len(fine)).long(),
                      positions, points)  # fmt: skip


def tiny(**kwargs) -> nn.Module:
    torch.manual_seed(0)
    return pointmix.create_model(
        "coc_tiny", dims=(8, 8, 8, 8), depths=(2, 1, 1, 1), heads=1, head_dim=4, num_classes=3, **kwargs
    )


def test_every_pixel_shows_the_cluster_of_its_nearest_point():
    seen, made = halves(8)
    center, window = label_maps(seen, made, 0)
    assert center.tolist() == [[0] * 4 + [1] * 4] * 8
    assert (window == 0).all()


def test_absent_pixels_show_nothing():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 1:7] = True
    _, made = halves(8)
    seen = pointmix.PointSet.from_image(torch.rand(3, 8, 8), mask)
    center, window = label_maps(seen, made, 0)
    assert ((center >= 0) == mask.numpy()).all() and ((window >= 0) == mask.numpy()).all()
    assert np.isnan(to_pictures(seen, None, None)[0][~mask.numpy()]).all()


def test_normalization_is_undone():
    image = torch.rand(3, 4, 5)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    seen = pointmix.PointSet.from_image(image, mean=mean, std=std)
    np.testing.assert_allclose(to_pictures(seen, mean, std)[0], image.permute(1, 2, 0).numpy(), atol=1e-6)


def test_first_block_and_the_last_of_each_stage_are_shown():
    names = ["stages.0.blocks.0", "stages.0.blocks.1", "stages.0.blocks.2", "stages.1.blocks.0", "stages.1.blocks.1"]
    made = [replace(halves(8)[1], name=name) for name in names]
    assert [m.name for m in first_and_last(made)] == [names[0], names[2], names[4]]
    assert [m.name for m in first_and_last(made[3:])] == names[3:]
    assert [m.name for m in first_and_last(made[4:])] == names[4:]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_makes_a_picture(tmp_path, channels):
    model = tiny(in_chans=channels).train()
    path = tmp_path / "clusters.png"
    draw_clusters(model, torch.randn(6, channels, 40, 24), path, classes=["cat", "d$g", "_x"], max_images=2)
    assert model.training
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert image.format == "PNG" and min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200  # not an empty sheet
    assert list(tmp_path.iterdir()) == [path]


def test_masked_and_ragged_sets_make_a_picture(tmp_path):
    masks = [torch.rand(32, 32, generator=torch.Generator().manual_seed(1)) < 0.5, None, None]
    images = [torch.rand(3, 32, 32), torch.rand(3, 1, 7), torch.rand(3, 50, 21)]
    draw_clusters(tiny(), pointmix.PointSet.from_images(images, masks), tmp_path / "clusters.png")
    assert (tmp_path / "clusters.png").stat().st_size > 10_000


def test_pixels_and_centers_are_where_the_model_puts_them(tmp_path, monkeypatch):
    calls = set()

    def noted(ax, picture, pixels, assignment, row, *, inclusive):
        calls.add((pixels.pos.max().item(), inclusive))

    monkeypatch.setattr(images, "draw_panel", noted)
    for mode in ("inclusive", "exclusive"):
        draw_clusters(tiny(coord_mode=mode), torch.rand(1, 3, 8, 8), tmp_path / "x.png")
    assert calls == {(0.5, True), (0.375, False)}


def test_the_picture_follows_the_clusters(tmp_path):
    class Fixed(nn.Module):
        def __init__(self, made):
            super().__init__()
            self.made = made

        def explain(self, x):
            return [self.made]

    seen, made = halves(16)
    files = [tmp_path / name for name in ("a.png", "b.png", "again.png")]
    draw_clusters(Fixed(made), seen, files[0])
    draw_clusters(Fixed(made), seen, files[2])
    center = 1 - made.center
    center[3] = 1 - center[3]
    draw_clusters(Fixed(replace(made, center=center)), seen, files[1])
    assert files[0].read_bytes() == files[2].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize("size, is_grouped", [(4, True), (2, False)])
def test_a_block_with_as_many_centers_as_points_says_so(size, is_grouped):
    """With 2 x 2 centers in one window, 4 x 4 points are grouped and 2 x 2 points are not."""
    seen, made = halves(2 * size)
    made = replace(made, center_pos=torch.cat([made.center_pos] * 2))
    assert groups_nothing(made, 0) is not is_grouped
    ax = Figure().subplots()
    images.draw_panel(ax, to_pictures(seen, None, None)[0], seen, made, 0, inclusive=True)
    assert ["nothing is grouped" in text.get_text() for text in ax.texts] == [True] * (not is_grouped)
    assert len(ax.collections) == is_grouped  # dots of centers


def test_the_true_class_stands_beside_the_predicted_one(tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(images, "hide_axes", lambda axes: texts.extend(ax.get_xlabel() for ax in axes[:, 0]))
    images_, classes = torch.rand(2, 3, 8, 8), ["cat", "dog", "a very long name of a breed, and its name in Latin"]
    with torch.no_grad():
        guess = tiny().eval()(images_).argmax(1).tolist()
    draw_clusters(tiny(), images_, tmp_path / "x.png", classes=classes, labels=[2, 0])
    for text, label, predicted in zip(texts, (2, 0), guess, strict=True):
        assert " ".join(text.split("\n")).startswith(f"{classes[label]}, predicted {classes[predicted]} (")
    assert max(len(line) for text in texts for line in text.split("\n")) <= 36
    assert wrapped(truth_and_guess("automobile", "automobile", 0.39)).split("\n")[1] == "(39\N{NO-BREAK SPACE}%)"
    with pytest.raises(ValueError, match="2 images but 1 labels"):
        draw_clusters(tiny(), images_, tmp_path / "x.png", classes=classes, labels=[2])


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no image to draw"):
        draw_clusters(tiny(), torch.rand(2, 3, 8, 8), tmp_path / "x.png", max_images=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("explains", [True, False])
def test_a_model_that_does_not_cluster(tmp_path, monkeypatch, explains):
    titles = []
    monkeypatch.setattr(images, "set_titles", lambda axes, texts: titles.extend(texts))
    model = tiny(cluster=False) if explains else nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    draw_clusters(model, torch.rand(1, 3, 8, 8), tmp_path / "x.png", classes=["cat", "dog"])
    assert titles == ["image\nno block clusters"] and (tmp_path / "x.png").exists()


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=f"cannot write {tmp_path}"):
        draw_clusters(tiny(), torch.rand(1, 3, 8, 8), tmp_path)
