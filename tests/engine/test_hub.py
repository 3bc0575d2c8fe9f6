"""Loading and uploading, against a hub on this computer."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants
from PIL import Image

import pointmix
from pointmix.engine.checkpoint import load_run
from pointmix.engine.inference import open_model
from tests.engine.hub_server import TOKEN, Hub

FILES = ["README.md", "clusters.png", "config.yaml", "curves.png", "metrics.json", "model.safetensors"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub, an empty cache, and nobody is logged in."""
    server = Hub()
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_STORED_TOKENS_PATH": str(tmp_path / "tokens"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    yield server
    server.close()


def equal(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_goes_to_the_hub_and_comes_back(hub, finished_run):
    url = pointmix.push_to_hub(finished_run, "me/letters", token=TOKEN, license="mit")
    assert url == f"{hub.url}/me/letters/commit/{'c' * 40}"
    ((message, files),) = hub.commits
    assert message == "Upload run with pointmix" and sorted(files) == FILES and not hub.private
    assert b"license: mit" in hub.repos["me/letters"]["main"]["README.md"]
    model, (original, info) = pointmix.from_pretrained("me/letters"), load_run(finished_run)
    assert not model.training and equal(model, original)
    assert model.info["classes"] == info["classes"] and model.info["mean"] == info["mean"]
    assert equal(open_model(run="hf-hub:me/letters@main")[0], original)


def test_a_private_branch(hub, finished_run):
    for message in ("first", "second"):
        given = {"revision": "try", "commit_message": message, "pictures": False}
        pointmix.push_to_hub(finished_run, "me/letters", private=True, token=TOKEN, **given)
    assert hub.private == {"me/letters"} and [message for message, _ in hub.commits] == ["first", "second"]
    branches = hub.repos["me/letters"]
    assert branches["main"] == {} and sorted(branches["try"]) == [file for file in FILES if not file.endswith("png")]
    with pytest.raises(ValueError, match="me/letters@try: the hub has no such repository, or it is private.*HF_TOKEN"):
        pointmix.from_pretrained("me/letters", revision="try")
    hub.private.clear()
    assert pointmix.from_pretrained("me/letters", revision="try").info["task"] == "classify_images"


def test_a_folder(finished_run, tmp_path):
    files = pointmix.save_pretrained(finished_run, tmp_path / "shared", repo_id="me/letters")
    assert sorted(file.name for file in files) == FILES and all(file.parent == tmp_path / "shared" for file in files)
    for source in (tmp_path / "shared", str(tmp_path / "shared/model.safetensors"), finished_run):
        assert equal(pointmix.from_pretrained(source), load_run(finished_run)[0])


def test_local_paths_stay_here(finished_run, tmp_path):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert len(metrics["skipped"]) == 1  # names a file
    for file in pointmix.save_pretrained(finished_run, tmp_path / "shared"):
        content = file.read_bytes()
        assert b"jane" not in content and str(finished_run.parent).encode() not in content, file
    shared = json.loads((tmp_path / "shared/metrics.json").read_text())
    ((name, reason),) = shared.pop("skipped")
    assert name == "bad.png" and "/" not in reason
    assert shared["info"]["data"]["root"] == "letters" and shared["info"]["classes"] == metrics["info"]["classes"]
    assert shared["history"] == metrics["history"] and shared["test"] == metrics["test"]


def test_its_transform_is_that_of_evaluation(finished_run):
    model = pointmix.from_pretrained(finished_run)
    image = Image.new("RGB", (30, 20), (51, 51, 51))
    x = model.transform(image)
    mean, std = model.info["mean"][0], model.info["std"][0]
    torch.testing.assert_close(x, torch.full((1, 8, 8), (0.2 - mean) / std))
    assert model(x[None]).shape == (1, 2)


REFUSED = {
    "no/repo": "cannot download model.safetensors of hf-hub:no/repo: the hub has no such repository",
    "hf-hub:me/empty": "the repository has no such file; pickles such as pytorch_model.bin are not read",
    "me/empty@other": "the repository has no such revision",
    "me/timm": "was not written by a run: its metadata has no 'task'",
    "me/damaged": "is not a safetensors file",
    "hf-hub:me": "me",
}


@pytest.mark.parametrize("source", REFUSED)
def test_what_the_hub_does_not_have(hub, source):
    hub.repos = {
        "me/empty": {"main": {"pytorch_model.bin": b"pickle"}},
        "me/timm": {"main": {"model.safetensors": safetensors.torch.save({"w": torch.ones(1)}, {"format": "pt"})}},
        "me/damaged": {"main": {"model.safetensors": b"nonsense"}},
    }
    with pytest.raises(ValueError, match=REFUSED[source]) as e:
        pointmix.from_pretrained(source)
    assert "\n" not in str(e.value)


def test_names_and_revisions(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="runs/a has no model.safetensors"):
        pointmix.from_pretrained("runs/a")
    for source in ("runs/a", "me/letters@main"):
        with pytest.raises(ValueError, match="with revision x: expected hf-hub:OWNER/NAME with one revision"):
            pointmix.from_pretrained(source, revision="x")
    with pytest.raises(FileNotFoundError):
        open_model(run="me/letters")  # commands ask the hub for hf-hub: alone


def test_no_connection(hub, finished_run, monkeypatch):
    hub.close()
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    with pytest.raises(ValueError, match=f"no answer from {hub.url}, and it is not in the cache"):
        pointmix.from_pretrained("hf-hub:me/letters@" + "a" * 40)
    with pytest.raises(ValueError, match=f"cannot upload to me/letters: no answer from {hub.url}"):
        pointmix.push_to_hub(finished_run, "me/letters", token=TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, and it is not in the cache"):
        pointmix.from_pretrained("me/letters")


def test_what_is_in_the_cache_needs_no_connection(hub, finished_run):
    pointmix.push_to_hub(finished_run, "me/letters", token=TOKEN, pictures=False)
    original = pointmix.from_pretrained("me/letters")
    hub.close()
    assert equal(pointmix.from_pretrained("me/letters"), original)


def test_a_wrong_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ValueError, match="the hub does not accept the token; log in"):
        pointmix.from_pretrained("me/letters")


def test_uploads_that_are_refused(hub, finished_run):
    refused = {
        ("me/letters", None): "uploading to me/letters needs a token; log in with `hf auth login` or set HF_TOKEN",
        ("me/letters", "hf_wrong"): "cannot upload to me/letters: the hub does not accept the token",
        ("others/letters", TOKEN): "cannot upload to others/letters: the token has no permission",
        ("letters", TOKEN): "repository 'letters', expected OWNER/NAME",
        ("me/-letters.", TOKEN): "me/-letters.",
    }
    for (repo, token), message in refused.items():
        with pytest.raises(ValueError, match=message) as e:
            pointmix.push_to_hub(finished_run, repo, token=token)
        assert "\n" not in str(e.value)
    assert hub.commits == []


def test_runs_that_are_refused(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    with pytest.raises(ValueError, match="is the run itself, expected another folder"):
        pointmix.save_pretrained(run, run)
    with pytest.raises(ValueError, match="is a file, expected the folder of a finished run"):
        pointmix.save_pretrained(run / "model.safetensors", tmp_path / "out")
    (run / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="metrics.json is damaged, or of another version: KeyError 'model'"):
        pointmix.save_pretrained(run, tmp_path / "out")
    for text in ("[1]", "{"):
        (run / "metrics.json").write_text(text)
        with pytest.raises(ValueError, match="metrics.json is damaged"):
            pointmix.save_pretrained(run, tmp_path / "out")
    (run / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no metrics.json; has the run ended?"):
        pointmix.save_pretrained(run, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no such file"):
        pointmix.save_pretrained(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_library_has_what_the_hub_is_asked_with():
    assert issubclass(huggingface_hub.errors.GatedRepoError, huggingface_hub.errors.RepositoryNotFoundError)
    assert issubclass(huggingface_hub.errors.LocalEntryNotFoundError, huggingface_hub.errors.EntryNotFoundError)
