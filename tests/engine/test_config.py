from __future__ import annotations

import dataclasses

import pytest
import yaml

from pointmix.data.images import DataConfig
from pointmix.engine.config import (
    FREE_KEYS,
    MixConfig,
    ModelConfig,
    TrainConfig,
    as_plain,
    changed_key,
    parse,
    run_folder,
)


def test_flags_win_over_files_and_files_over_defaults(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("epochs: 7\nbatch_size: 32\noptim: {lr: 0.5, betas: [0.8, 0.9]}\n")
    for argv in ([f"--config={file}", "--epochs", "9"], ["--epochs=9", "--config", str(file)]):
        cfg = parse(argv)
        assert (cfg.epochs, cfg.batch_size, cfg.optim.lr, cfg.optim.betas) == (9, 32, 0.5, (0.8, 0.9))
    assert cfg.optim.weight_decay == TrainConfig().optim.weight_decay
    assert isinstance(cfg.data, DataConfig)


def test_default_config_only_without_another(tmp_path):
    default, other = tmp_path / "d.yaml", tmp_path / "o.yaml"
    default.write_text("epochs: 7\nbatch_size: 32\n")
    other.write_text("epochs: 8\n")
    assert parse(["--seed=1"], default_config=str(default)).epochs == 7
    cfg = parse([f"--config={other}"], default_config=str(default))
    assert (cfg.epochs, cfg.batch_size) == (8, TrainConfig().batch_size)


def test_another_model_does_not_inherit_kwargs(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: {name: coc_tiny, kwargs: {layer_scale: 1.0}}\n")
    assert parse([f"--config={file}"]).model.kwargs == {"layer_scale": 1.0}
    assert parse([f"--config={file}", "--model.name=resnet10t"]).model == ModelConfig("resnet10t", {})
    assert parse(["--model.name=resnet10t", f"--config={file}"]).model == ModelConfig("resnet10t", {})
    assert parse([f"--config={file}", "--model.name=a", '--model.kwargs={"b": 1}']).model == ModelConfig("a", {"b": 1})


def test_the_same_model_keeps_the_kwargs_of_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: {name: coc_tiny, kwargs: {layer_scale: 1.0}}\n")
    for argv in ([f"--config={file}", "--model.name=coc_tiny"], ["--model.name", "coc_tiny", f"--config={file}"]):
        assert parse(argv).model == ModelConfig("coc_tiny", {"layer_scale": 1.0})


@pytest.mark.parametrize(
    "argv, names",
    [
        (["--optim.speed", "3"], "optim.speed"),
        (["--epochs", "many"], "epochs"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--precision", "fp8"], "precision"),
        (["--batch_size", "5", "--mix.mixup", "0.2"], "batch_size must be even"),
        (["--config", "no_such_file.yaml"], "no_such_file.yaml"),
        (["--epochs", "3", "--config"], "config"),
        (["--data.root", "DIR"], "data.root DIR: data.source is digits, .* --config such as"),
        (["--data.hflip", "2"], "data.hflip 2"),
        (["--optim.sched", "plateau"], "optim.sched plateau is not taken; expected cosine"),
    ],
)
def test_wrong_flags_give_one_line(argv, names):
    with pytest.raises(ValueError, match=names) as e:
        parse(argv)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("text, names", [("optim: {speed: 3}", "speed"), ("spede: 3", "spede"), ("a: [", "config")])
def test_wrong_files_give_one_line(tmp_path, text, names):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=names) as e:
        parse([f"--config={file}"])
    assert "\n" not in str(e.value)


def test_help_explains_every_key(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for section in ("", "optim", "mix", "model"):
        kind = type(getattr(TrainConfig(), section)) if section else TrainConfig
        for field in dataclasses.fields(kind):
            if not dataclasses.is_dataclass(field.default_factory):
                assert f"--{section}{'.' * bool(section)}{field.name}" in text
    for line in ("Alpha of mixup; 0 is off.", "Weight decay; none on biases", "Images a step and process."):
        assert line in text
    assert "default: 0.05" in text


def test_plain_form_is_yaml_and_parses_back(tmp_path):
    cfg = TrainConfig(model=ModelConfig("coc_tiny", {"dims": (1, 2)}), epochs=4, out="x")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(as_plain(cfg)))
    assert as_plain(parse([f"--config={file}"])) == as_plain(cfg)


def test_changed_key():
    old = as_plain(TrainConfig())
    assert changed_key(old, as_plain(TrainConfig())) is None
    free = TrainConfig(out="b", restart=True, max_steps=3, log_every=7, save_every_steps=2, data=DataConfig(workers=3))
    assert changed_key(old, as_plain(free)) is None
    assert changed_key(old, as_plain(TrainConfig(mix=MixConfig(mixup=0.5)))) == "mix.mixup was 0.0 and is now 0.5"
    assert "epochs was 300" in changed_key(old, as_plain(TrainConfig(epochs=2)))
    kwargs = as_plain(TrainConfig(model=ModelConfig(kwargs={"a": 1})))
    assert changed_key(kwargs, old) == "model.kwargs was {'a': 1} and is now {}"
    for key in FREE_KEYS:  # a key that was renamed would be forgotten here
        section, _, name = key.rpartition(".")
        assert hasattr(getattr(TrainConfig(), section) if section else TrainConfig(), name), key


def test_run_folder(tmp_path):
    assert run_folder(TrainConfig(out="a/b")) == "a/b"
    assert run_folder(TrainConfig(name="n")) == "runs/n"
    assert run_folder(TrainConfig()) == "runs/coc_tiny-digits"
    data = DataConfig(source="folder", root=str(tmp_path / "flowers"))
    assert run_folder(TrainConfig(data=data)) == "runs/coc_tiny-flowers"
