from __future__ import annotations

import json
import re

import pytest
from huggingface_hub import ModelCard

import pointmix
from pointmix.engine.card import escaped, model_card
from pointmix.engine.checkpoint import load_run
from pointmix.tasks.base import get_task

SCORE = {"percent": True, "larger_is_better": True}


@pytest.fixture
def metrics():
    """Of a run, as metrics.json has them."""
    return {
        "task": "classify_images",
        "test": {"top1": 0.8125, "loss": 0.5},
        "more_tests": {"vote": {"top1": 0.875}},
        "select": "val",
        "monitor": "top1",
        "scores": {"top1": {"label": "top-1", **SCORE}},
        "selected": {"epoch": 2.0, "val": {"top1": 0.75}},
        "model": {"name": "coc_tiny", "kwargs": {}},
        "data": "letters",
        "unit": "images",
        "samples": {"training": 4000, "validation": 400, "test": 1000},
        "parameters": 9942,
        "epochs": 3.0,
        "steps": 1200,
        "seconds": 61.5,
        "processes": 2,
        "device": "cuda",
        "skipped": [["a.png", "no image"]],
        "versions": {"python": "3.11.7", "pointmix": "0.1.0"},
    }


@pytest.fixture
def info():
    return {
        "task": "classify_images",
        "name": "coc_tiny",
        "kwargs": {},
        "data": {"source": "folder"},
        "classes": ["a", "b"],
        "in_chans": 3,
        "img_size": 32,
        "mean": [0.5],
        "std": [0.5],
    }


def card(metrics, info, **given):
    return model_card(metrics, info, **{"repo_id": "me/x", "flags": [], "pictures": [], "license": None} | given)


def test_what_the_hub_reads(metrics, info):
    data = ModelCard(card(metrics, info, license="mit")).data
    assert (data.library_name, data.license, data.pipeline_tag) == ("pointmix", "mit", "image-classification")
    assert data.tags == ["pointmix", "classify_images", "coc_tiny"] and data.model_name == "x"
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("letters", "test")
    assert (result.metric_type, result.metric_name, result.metric_value) == ("top1", "top-1", 0.8125)
    assert ModelCard(card(metrics, info)).data.license is None


def test_what_people_read(metrics, info):
    text = card(metrics, info, flags=["data.root"], pictures=["clusters.png"])
    for line in (
        r"The network coc\_tiny with 9,942 parameters, trained on letters for the task classify\_images with pointmix.",
        'model = pointmix.from_pretrained("hf-hub:me/x")  # in evaluation mode',
        "pointmix predict --run hf-hub:me/x FILE",
        "| | test (1,000 images) | test, vote | validation (400 images) |",
        "|---|---:|---:|---:|",
        "| top-1 | 81.25 % | 87.50 % | 75.00 % |",
        "pointmix train --task classify_images --config config.yaml --data.root PATH",
        "Epochs: 3 of 4,000 images, steps: 1,200, seconds: 62 on 2 x cuda, damaged and left out: 1.",
        "python 3.11.7, pointmix 0.1.0.",
        "2 classes: a, b.",
        "![clusters.png](clusters.png)",
        "None is stated.",
    ):
        assert line in text.splitlines()
    assert "float32 images of shape (B, 3, 32, 32)" in text
    assert "from PIL import Image\n\nimport pointmix\n" in text and "x = model.transform(Image.open(" in text


def test_how_the_weights_were_selected(metrics, info):
    assert "epoch 2, the best by top-1 on validation data, which it was not trained on. The test data had" in card(
        metrics, info
    )
    last = card(metrics | {"select": "last", "selected": {"epoch": 3.0}}, info)
    assert "epoch 3, the last. The test data had no part in training or selection." in last
    on_test = card(metrics | {"select": "test", "last": {"top1": 0.5}}, info)
    assert "the best on the test data by top-1: the result is biased upwards." in on_test
    assert "no part in training" not in on_test and "| top-1 | 81.25 % | 87.50 % | 50.00 % | 75.00 % |" in on_test


def test_runs_without_samples_and_numbers(metrics, info):
    del metrics["samples"]
    text = card(metrics | {"test": {"top1": float("nan")}}, info)
    assert "| | test | test, vote | validation |" in text and not ModelCard(text).data.eval_results


def test_hostile_names(metrics, info):
    evil = "x|y\n---\nlicense: evil <script>alert(1)</script> [z](http://z) `q` **b** \x1b[31m"
    metrics |= {"data": evil, "model": {"name": evil, "kwargs": {}}, "unit": evil, "device": evil}
    metrics["scores"]["top1"]["label"] = evil
    text = card(metrics, info | {"classes": [evil, "- a", "1. b"]})
    data = ModelCard(text).data
    assert data.license is None and data.eval_results[0].dataset_name == evil
    body = text[text.index("\n---\n\n# ") :]
    prose = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<|(?<!\\)\[z|(?<!\\)`q|\x1b|^license: evil", prose, re.MULTILINE)
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_clouds(metrics, info):
    about = {"task": "classify_points", "name": "pointmlp_elite", "data": {"source": "shapes"}, "in_chans": 0}
    text = card(metrics, info | about)
    assert "It takes a pointmix.PointSet of positions (N, 3) and features (N, 0), prepared" in text
    assert "x = model.transform(points)\ny = model(x)\n" in text
    data = ModelCard(text).data
    assert data.pipeline_tag is None and data.eval_results[0].task_type == "classify_points"


def test_long_lists_of_classes(metrics, info):
    text = card(metrics, info | {"classes": [f"c{i}" for i in range(1000)]})
    assert "1,000 classes: c0, " in text and "c99 and 900 more." in text and "c100" not in text


def test_escaping():
    assert escaped("a|b *c* <d>") == r"a\|b \*c\* \<d\>" and escaped("plain-text 1.5 %") == "plain-text 1.5 %"


def test_the_card_of_a_run(finished_run, tmp_path):
    pointmix.save_pretrained(finished_run, tmp_path / "shared")
    text = (tmp_path / "shared/README.md").read_text()
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert ModelCard(text).data.eval_results[0].metric_value == metrics["test"]["top1"]
    assert 'from_pretrained("hf-hub:OWNER/NAME")' in text and f"test ({metrics['samples']['test']} images)" in text
    assert r"2 classes: \<img src=x\>, a\|b." in text and "--data.root PATH" in text
    assert text.index("![clusters.png]") < text.index("![curves.png]")
    assert load_run(tmp_path / "shared")[1]["classes"] == ["<img src=x>", "a|b"]


def test_tasks_name_themselves_as_the_hub_does():
    tags = {name: get_task(name).pipeline_tag for name in ("classify_images", "segment", "detect", "classify_points")}
    assert list(tags.values()) == ["image-classification", "image-segmentation", "object-detection", None]
