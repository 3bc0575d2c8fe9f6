from __future__ import annotations

import pytest

from pointmix.engine import flags
from pointmix.engine.recipes import load_yaml, read_settings
from pointmix.tasks.classify_images import ClassifyImagesConfig


@pytest.fixture
def parse(tmp_path):
    def of(text, *argv):
        file = tmp_path / "recipe.yaml"
        file.write_text(text) if isinstance(text, str) else file.write_bytes(text)
        return flags.parse([f"--config={file}", *argv], ClassifyImagesConfig)

    return of


@pytest.mark.parametrize("word", ["no", "off", "false", "'no'"])
def test_what_yaml_takes_for_false_is_what_was_meant(parse, word):
    assert parse(f"precision: {word}").precision == "no"
    policy = "off" if word == "'no'" else word
    cfg = parse(f"data: {{auto_augment: {policy}, cache: off}}\noptim: {{clip_grad: no}}")
    assert (cfg.data.auto_augment, cfg.data.cache, cfg.optim.clip_grad) == (None, False, None)
    assert parse("data: {cache: yes}\nrestart: on").data.cache is True
    with pytest.raises(ValueError, match="epochs"):
        parse("epochs: no")


@pytest.mark.parametrize("text", ["", "# a remark\n", "---\n", "optim:\n"])
def test_an_empty_file_holds_no_settings(parse, text):
    assert parse(text) == ClassifyImagesConfig()
    assert parse(text, "--epochs=3").epochs == 3


def test_numbers_as_people_write_them(parse):
    cfg = parse("optim: {lr: 1e-4, min_lr: 1.0E-7, weight_decay: .5}\nmodel: {kwargs: {layer_scale: 1e-1, name: e5}}")
    assert (cfg.optim.lr, cfg.optim.min_lr, cfg.optim.weight_decay) == (1e-4, 1e-7, 0.5)
    assert cfg.model.kwargs == {"layer_scale": 0.1, "name": "e5"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("epochs: 3\nseed: 1\nepochs: 4\n", "recipe.yaml cannot be read as YAML: 'epochs' is there twice, .* line 3"),
        ("model: {kwargs: {a: {b: 1, b: 2}}}", "'b' is there twice, again in line 1"),
        ("? [1, 2]\n: 3\n", "a key is a list or a mapping in line 1"),
        ("- 1\n", r"recipe.yaml holds no settings, expected lines such as epochs: 300, got '\[1\]'"),
        ("words", "recipe.yaml holds no settings"),
        ("a: b: c", "recipe.yaml cannot be read as YAML: mapping values"),
        ("a: !!python/object/apply:os.getcwd []", "recipe.yaml cannot be read as YAML: could not determine"),
        ("[" * 5000, "recipe.yaml is nested more than 50 levels deep"),
        (b"\xff\xfe\x00", "recipe.yaml is not UTF-8 text"),
        ("spede: 3", "recipe.yaml: .*spede"),
        ("optim: {spede: 3}", "recipe.yaml: .*spede"),
        ("epochs: many", "recipe.yaml: .*epochs"),
        ("epochs: .inf", "epochs"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_it(parse, text, message):
    with pytest.raises(ValueError, match=message) as e:
        parse(text)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["nowhere.yaml", "", "/dev/null", "."])
def test_no_such_file(name):
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        read_settings(name, ClassifyImagesConfig)
    with pytest.raises(ValueError, match="no configuration file"):
        flags.parse([f"--config={name}"], ClassifyImagesConfig)


def test_settings_as_text():
    assert read_settings("epochs: 3\nprecision: no\n", ClassifyImagesConfig) == {"epochs": 3, "precision": "no"}
    assert flags.parse(["--config=epochs: 3\nseed: 1"], ClassifyImagesConfig).epochs == 3
    assert load_yaml("a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}, d: 2}", "text") == {"a": [1, 2], "b": [1, 2], "c": {"d": 2}}
