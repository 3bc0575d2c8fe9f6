"""A whole page: epochs, size, errors."""

from __future__ import annotations

import json
import re

import pytest
import torch

from pointmix.explain.page import build
from pointmix.explain.page.build import fitted, write_explained
from pointmix.explain.page.scene import image_scene
from tests.explain.page.test_clusters import tiny

CLASSES = ["cat", "dog", "cow"]


def content(path):
    return json.loads(re.search(r'<script[^>]*id="content"[^>]*>(.*?)</script>', path.read_text(), re.S)[1])


def test_a_page_of_several_epochs(tmp_path):
    model, scene = tiny(), image_scene(torch.rand(1, 3, 32, 32))
    first = {key: value.clone() for key, value in model.state_dict().items()}
    other = tiny(heads=2)
    torch.nn.init.normal_(other.head.weight)

    def damaged(model):
        raise ValueError("epoch_2.safetensors is damaged")

    epochs = [
        ("epoch 1", lambda m: m.load_state_dict(first)),
        ("epoch 2", damaged),
        ("best", lambda m: m.load_state_dict(other.state_dict())),
    ]
    model.train()
    with pytest.warns(UserWarning, match="epoch 2 is left out: epoch_2.safetensors is damaged"):
        write_explained(
            tmp_path / "a.html", model, scene, title="a < b", classes=CLASSES, truth="cow", clusters=3, epochs=epochs
        )
    page = content(tmp_path / "a.html")
    assert model.training and [e["label"] for e in page["epochs"]] == ["epoch 1", "best"]
    assert page["title"] == "a < b" and page["truth"] == "cow" and page["kind"] == "lattice"
    for epoch in page["epochs"]:
        assert len(epoch["guess"]) == 3 and sum(g["probability"] for g in epoch["guess"]) == pytest.approx(1, abs=1e-5)
        assert len(epoch["blocks"]) == 3 and epoch["reduced"]["name"] == "3 blocks, k-means into 3"
    names = {m["name"] for epoch in page["epochs"] for m in epoch["maps"]}
    assert "class activation: cow" in names
    assert page["epochs"][0]["blocks"][0]["center"] == page["epochs"][1]["blocks"][0]["center"]  # stored once


def test_a_page_is_kept_small(tmp_path, monkeypatch):
    model, scene, views = tiny(heads=6), image_scene(torch.rand(1, 3, 32, 32)), []
    monkeypatch.setattr(build, "fitted", lambda view: views.append(view) or {})
    monkeypatch.setattr(build, "write_page", lambda path, content: None)
    weights = [(f"epoch {i}", lambda m: torch.nn.init.normal_(m.stages[0].blocks[0].mixer.qv.weight)) for i in range(5)]
    write_explained("x.html", model, scene, title="", epochs=weights)
    (view,) = views
    size = lambda content: sum(len(array["data"]) for array in content["arrays"])  # noqa: E731
    whole = fitted(view)
    assert [e["label"] for e in whole["epochs"]] == [f"epoch {i}" for i in range(5)] and whole["notes"] == []
    fewer = fitted(view, limit=size(whole) - 1)
    assert [e["label"] for e in fewer["epochs"]] == ["epoch 0", "epoch 2", "epoch 4"]
    assert fewer["notes"] == ["Some epochs are left out to keep the page small."]
    least = fitted(view, limit=1)
    assert [e["label"] for e in least["epochs"]] == ["epoch 0", "epoch 4"]
    assert all(least["arrays"][b["center"]]["shape"][1] == 1 for e in least["epochs"] for b in e["blocks"])
    assert least["notes"][1] == "Of each block the first head is shown, to keep the page small."


@pytest.mark.parametrize(
    "given, message",
    [
        ({"clusters": 1}, "clusters must be from 2 to 36, got 1"),
        ({"truth": "cow", "classes": ["cat"]}, "label 'cow': expected one of cat"),
        ({"truth": "cow"}, "label 'cow': the network does not classify"),
    ],
)
def test_errors(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        write_explained(tmp_path / "a.html", tiny(), image_scene(torch.rand(1, 3, 32, 32)), title="", **given)
    assert not (tmp_path / "a.html").exists()


def test_weights_that_give_nonsense_are_named(tmp_path):
    model = tiny()
    model.head.weight.data.fill_(float("nan"))
    scene, weights = image_scene(torch.rand(1, 3, 32, 32)), [("epoch 7", lambda model: None)]
    with pytest.raises(ValueError, match="^epoch 7: the output is not finite; are the weights whole?"):
        write_explained(tmp_path / "a.html", model, scene, title="", classes=CLASSES, epochs=weights)


def test_the_true_class_is_shown_however_unlikely(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SHOWN_GUESSES", 1)
    model, x = tiny(), torch.rand(1, 3, 32, 32)
    order = model(x)[0].argsort(descending=True).tolist()
    for truth, expected in ((order[0], order[:1]), (order[2], [order[0], order[2]])):
        write_explained(tmp_path / "a.html", model, image_scene(x), title="", classes=CLASSES, truth=CLASSES[truth])
        (epoch,) = content(tmp_path / "a.html")["epochs"]
        assert [guess["name"] for guess in epoch["guess"]] == [CLASSES[i] for i in expected]
