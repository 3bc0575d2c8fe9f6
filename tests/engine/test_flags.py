from __future__ import annotations

import dataclasses

import pytest

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.images.config import DataConfig
from pointmix.engine import flags
from pointmix.tasks.classify_images import ClassifyImagesConfig
from pointmix.tasks.classify_points import ClassifyPointsConfig
from pointmix.tasks.config import ModelConfig, run_folder


def parse(argv, kind=ClassifyImagesConfig, **kwargs):
    return flags.parse(argv, kind, **kwargs)


def test_flags_win_over_files_and_files_over_defaults(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("epochs: 7\nbatch_size: 32\noptim: {lr: 0.5, betas: [0.8, 0.9]}\n")
    for argv in ([f"--config={file}", "--epochs", "9"], ["--epochs=9", "--config", str(file)]):
        cfg = parse(argv)
        assert (cfg.epochs, cfg.batch_size, cfg.optim.lr, cfg.optim.betas) == (9, 32, 0.5, (0.8, 0.9))
    assert cfg.optim.weight_decay == ClassifyImagesConfig().optim.weight_decay
    assert isinstance(cfg.data, DataConfig)


@pytest.fixture
def embedded(tmp_path):
    file = tmp_path / "embedded.yaml"
    file.write_text("name: embedded\nepochs: 7\nmodel: {name: coc_tiny, kwargs: {layer_scale: 1.0}}\n")
    return str(file)


def test_embedded_recipe_is_for_embedded_data_only(tmp_path, embedded):
    def of(*argv, kind=ClassifyImagesConfig):
        cfg, recipe = flags.parse_recipe(list(argv), kind, prog="x.py", embedded=embedded)
        return (cfg.name, cfg.epochs, cfg.model.kwargs, cfg.data.source), recipe

    mine, theirs = ("embedded", 7, {"layer_scale": 1.0}), (None, 300, {})
    for argv in ([], ["--seed=1"], ["--data.source=digits"], ["--model.name=coc_tiny"]):
        assert of(*argv) == ((*mine, "digits"), embedded)
    assert of("--name=n", "--epochs=3") == (("n", 3, {"layer_scale": 1.0}, "digits"), embedded)
    assert of("--model.name=resnet18") == ((None, 7, {}, "digits"), embedded)
    assert of("--model.name=resnet18", "--name=n") == (("n", 7, {}, "digits"), embedded)
    assert of("--data.source=folder", "--data.root=DIR") == ((*theirs, "folder"), "defaults of x.py")
    assert of("--data.source", "hfds/cifar10")[0] == (*theirs, "hfds/cifar10")
    implied = "defaults of x.py (data.source folder, as data.root is given)"
    assert of("--data.root=DIR", "--model.name=coc_tiny") == ((*theirs, "folder"), implied)
    other = tmp_path / "other.yaml"
    other.write_text("epochs: 8\n")
    assert of(f"--config={other}") == ((None, 8, {}, "digits"), str(other))
    other.write_text("data: {source: torch/cifar10, root: there}\n")
    assert of(f"--config={other}") == ((*theirs, "torch/cifar10"), str(other))
    kept = of("--data.root=D", "--data.source=shapes", kind=ClassifyPointsConfig)
    assert kept == ((*mine, "shapes"), embedded)  # D is where shapes are kept
    assert of("--data.root=D", kind=ClassifyPointsConfig)[0][-1] == "folder"
    (tmp_path / "ply_data_test0.h5").touch()
    assert of(f"--data.root={tmp_path}", kind=ClassifyPointsConfig)[0][-1] == "modelnet40"

    scans = of("--data.root=D", "--data.source=modelnet40", kind=ClassifyPointsConfig)
    assert scans == ((None, 250, {}, "modelnet40"), "defaults of x.py")

    class Own(ClassifyImagesConfig):
        @classmethod
        def root_source(cls, root: str) -> None:
            return None

    with pytest.raises(ValueError, match="data.root is D, and data.source is not given; expected both"):
        of("--data.root=D", kind=Own)


def test_lists_may_be_separated_by_spaces():
    for given in (["rgb", "intensity"], ["[rgb,intensity]"]):
        cfg = flags.parse(["--data.features", *given, "--seeds", "1", "2"], ClassifyPointsConfig)
        assert cfg.data.features == ("rgb", "intensity") and cfg.seeds == (1, 2)
    assert flags.parse(["--data.features=[]"], ClassifyPointsConfig).data.features == ()


def test_a_run_of_another_model_or_source_is_not_named_after_the_recipe(embedded):
    assert run_folder(parse([f"--config={embedded}"])) == "runs/embedded"
    assert run_folder(parse([f"--config={embedded}", "--model.name=resnet18"])) == "runs/resnet18-digits"
    flowers = ["--data.source=folder", "--data.root=a/flowers"]
    assert run_folder(parse([f"--config={embedded}", *flowers])) == "runs/coc_tiny-flowers"


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
        (["--seeds", "1", "x"], "seeds"),
        (["--seeds", "1", "1"], r"seeds must be one or more different numbers, got \[1, 1\]"),
        (["--seeds"], "seeds"),
        (["--select", "best"], "select"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--precision", "fp8"], "precision"),
        (["--batch_size", "5", "--mix.mixup", "0.2"], "batch_size must be even"),
        (["--config", "no_such_file.yaml"], "no_such_file.yaml"),
        (["--epochs", "3", "--config"], "config"),
        (["--data.source=digits", "--data.root", "DIR"], "data.root DIR: data.source is digits, which are part of"),
        (["--data.hflip", "2"], "data.hflip must be from 0 to 1, got 2.0"),
        (["--optim.clip_grad", "-1"], "optim.clip_grad must be above 0, got -1.0"),
        (["--optim.ema_decay", "5"], "optim.ema_decay must be at least 0 and below 1, got 5.0"),
        (["--optim.warmup_epochs=-3"], "optim.warmup_epochs must be at least 0, got -3.0"),
        (["--mix.mixup=-1"], "mix.mixup must be at least 0, got -1.0"),
        (["--save_every_seconds=-1"], "save_every_seconds must be at least 0, got -1.0"),
        (["--optim.betas=[0.9, 1.0]"], "optim.betas must be at least 0 and below 1, got"),
        (["--optim.lr=nan"], "optim.lr"),
        (["--optim.lr=inf"], "optim.lr"),
        (["--seed=-1"], "seed must be from 0 to 4294967295, got -1"),
        (["--seeds", "1", "-1"], r"seeds must be from 0 to 4294967295, got \(1, -1\)"),
        (["--epochs=true"], "epochs: expected int, got"),
        (["--optim.lr=much"], "optim.lr: expected float, got much"),
        (["--seed=x"], "seed: expected int, got x"),
        (["--optim.betas=3"], r"optim.betas: expected one of tuple\[float, float\], null, got 3"),
        (["--optim.opt=3x"], "optim.opt '3x' is not known; expected one of .* such as adamw"),
        (["--optim.sched", "plateau"], "optim.sched 'plateau' is not known; expected one of cosine, tanh, step,"),
        (["--optim.sched", "cosin"], r"optim.sched 'cosin' is not known; did you mean cosine\?"),
        (["--optim.opt", "adamx"], "optim.opt 'adamx' is not known; did you mean adamax or"),
        (["--optim.opt=sgd", "--optim.betas=[0.9,0.99]"], "optim.betas are .*, and sgd does not take two; expected"),
    ],
)
def test_wrong_flags_give_one_line(argv, names):
    with pytest.raises(ValueError, match=names) as e:
        parse(argv)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "text, names",
    [("optim: {speed: 3}", "speed"), ("spede: 3", "spede"), ("a: [", "c.yaml cannot be read as YAML")],
)
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
        kind = type(getattr(ClassifyImagesConfig(), section)) if section else ClassifyImagesConfig
        for field in dataclasses.fields(kind):
            if not dataclasses.is_dataclass(field.default_factory):
                assert f"--{section}{'.' * bool(section)}{field.name}" in text
    for line in ("Alpha of mixup; 0 is off.", "Weight decay; none on biases", "Samples a step and process."):
        assert line in text
    assert "default: 0.05" in text
    assert "null does not clip. [above 0] (type: Optional[float]" in text
    assert "0 is off. [at least 0] (type: float" in text


def test_clouds_have_flags_of_their_own(capsys):
    cfg = parse(["--data.points=512", "--mix.smoothing=0.2", "--votes", "10"], ClassifyPointsConfig)
    assert (cfg.data.points, cfg.mix.smoothing, cfg.votes, cfg.batch_size) == (512, 0.2, 10, 32)
    with pytest.raises(ValueError, match="mixup"):
        parse(["--mix.mixup=0.2"], ClassifyPointsConfig)
    with pytest.raises(SystemExit):
        parse(["--help"], ClassifyPointsConfig, prog="train_points.py")
    text = " ".join(capsys.readouterr().out.split())
    for line in ("usage: train_points.py", "Train a classifier of point clouds.", "Clouds a step and process."):
        assert line in text
    for field in dataclasses.fields(PointDataConfig):
        assert f"--data.{field.name} " in text


@pytest.mark.parametrize("kind", [ClassifyImagesConfig, ClassifyPointsConfig])
@pytest.mark.parametrize("flags", [["--seeds", "1", "2", "--epochs=3"], ["--epochs=3", "--seeds=[1, 2]"]])
def test_several_seeds(kind, flags):
    cfg = parse(flags, kind)
    assert (cfg.seeds, cfg.epochs) == ((1, 2), 3)
    assert parse([*flags, "--seeds=null"], kind).seeds is None


def test_seeds_of_a_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("seeds: [5, 6]\n")
    assert parse([f"--config={file}"]).seeds == (5, 6)
    assert parse([f"--config={file}", "--seeds", "7"]).seeds == (7,)
