"""A mixer from outside the package runs on images, partial images and clouds, and is trained by its name."""

from __future__ import annotations

import json

import pytest
import torch

import pointmix
from pointmix import PointSet
from pointmix.engine.checkpoint import load_run
from tests.engine.conftest import one_thread
from tests.outside import window_max
from tests.outside.commands import script

__all__ = ["one_thread"]
SIZE = (37, 51)  # 10 x 13 points in the first stage, in 2 x 2 windows


def network(**kwargs):
    """With the mixers at full strength; by default every branch starts with a factor of 1e-5."""
    torch.manual_seed(0)
    return pointmix.create_model("window_max", num_classes=3, layer_scale=1, **kwargs)


def partial_images():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 3, *SIZE, generator=generator)
    mask = torch.rand(3, *SIZE, generator=generator) < torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1)
    return [PointSet.from_image(*sample) for sample in zip(image, mask, strict=True)]


def whole_images():
    return PointSet.from_images(torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)))


def clouds():
    """Dense in the middle, so that some windows have many more points than others and are split."""
    generator = torch.Generator().manual_seed(0)
    return PointSet.cat([PointSet.from_points(torch.randn(n, 3, generator=generator) ** 3) for n in (5, 100, 1000)])


INPUTS = {
    "images": (whole_images, {}),
    "partial images": (lambda: PointSet.cat(partial_images()), {}),
    "clouds": (clouds, dict(in_chans=0, coord_dims=3, stem=(4, 2, 0))),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_it_is_the_maximum_of_each_window(kind):
    inputs, kwargs = INPUTS[kind]
    model, calls = network(**kwargs).eval(), []
    for module in model.modules():
        if isinstance(module, window_max.WindowMax):
            module.register_forward_hook(lambda module, args, out: calls.append((module, *args, out)))
    with torch.no_grad():
        model(inputs())
    split = 0
    for mixer, x, plan, _, out in calls:
        rows = plan.window_partition(x)
        windows = len(plan.pool_centers(rows))
        of_rows = plan.broadcast(torch.arange(windows)[:, None]).expand(*rows.shape[:2], 1)
        window = plan.window_reverse(of_rows)[:, 0]  # (N,)
        assert out.shape == x.shape and set(window.tolist()) == set(range(windows))
        for s in range(windows):
            expected = mixer.proj(x[window == s].amax(0))
            torch.testing.assert_close(out[window == s], expected.expand(int((window == s).sum()), -1))
        split += len(rows) > windows
    assert len(calls) == 2 and (split > 0) == (kind == "clouds")


def test_a_grid_is_a_sparse_grid():
    model, points = network().eval(), whole_images()
    with torch.no_grad():
        outputs = model(points)
        torch.testing.assert_close(outputs, model(points.as_sparse()), rtol=1e-4, atol=1e-5)
        model.stages[0].blocks[0].mixer.proj.weight.neg_()
        assert (model(points) - outputs).abs().max() > 1e-3  # the mixer has a say


def test_partial_images_do_not_depend_on_their_batch():
    model, images = network().eval(), partial_images()
    with torch.no_grad():
        alone = torch.cat([model(image) for image in images])
        torch.testing.assert_close(model(PointSet.cat(images)), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", INPUTS)
def test_a_step_trains_every_weight(kind):
    inputs, kwargs = INPUTS[kind]
    model, points = network(**kwargs).train(), inputs()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.nn.functional.cross_entropy(model(points), torch.arange(points.num_sets)).backward()
    optimizer.step()
    for name, weight in model.named_parameters():
        assert weight.isfinite().all() and not torch.equal(weight, before[name]), name


def test_it_is_trained_by_name(tmp_path, capsys):
    argv = ["--import", "tests.outside.window_max", "--model.name", "window_max", "--max_steps", "3", "--epochs", "1"]
    argv += ["--optim.warmup_epochs", "0", "--threads", "1", "--output_dir", str(tmp_path)]
    assert script("train_image")(argv) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == 3 and "window_max on digits" in capsys.readouterr().out
    model, info = load_run(tmp_path)
    assert info["name"] == "window_max" and isinstance(model.stages[0].blocks[0].mixer, window_max.WindowMax)
