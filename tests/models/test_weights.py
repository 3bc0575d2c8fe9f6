from __future__ import annotations

import argparse
import copy
import pickle

import pytest
import torch
from safetensors.torch import save_file

import pointmix
from pointmix.models.weights import reference_name

SMALL = dict(depths=(1, 2, 1, 1), dims=(8, 12, 16, 20), heads=2, head_dim=4, num_classes=5)
POOLS = [("skip", "conv_skip"), ("query", "conv_f"), ("value", "conv_v"), ("norm", "norm2")]  # of FEC
RENAMED = [
    *((f"stages.{i}.reducer.{our}.", f"network.{2 * i - 1}.{their}.") for i in (1, 2, 3) for our, their in POOLS),
    ("stages.0.reducer.", "patch_embed.proj."),
    ("stages.1.reducer.", "network.1.proj."),
    ("stages.2.reducer.", "network.3.proj."),
    ("stages.3.reducer.", "network.5.proj."),
    *((f"stages.{i}.blocks.", f"network.{2 * i}.") for i in range(4)),
    (".scale1.gamma", ".layer_scale_1"),
    (".scale2.gamma", ".layer_scale_2"),
    (".mixer.alpha", ".token_mixer.sim_alpha"),
    (".mixer.beta", ".token_mixer.sim_beta"),
    (".mixer.proj.", ".token_mixer.proj."),
]


def model_of(name: str = "coc_tiny", **kwargs) -> torch.nn.Module:
    return pointmix.create_model(name, **SMALL | kwargs)


def released(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Other random weights for the model, under the authors' names and in their shapes."""
    out = {}
    for name, value in model.state_dict().items():
        value = torch.randn_like(value)
        for ours, theirs in RENAMED:
            name = name.replace(ours, theirs)
        if ".mixer.qv." in name:
            for part, half in zip("fv", value.chunk(2), strict=True):
                key = name.replace(".mixer.qv.", f".token_mixer.{part}.")
                out[key] = half[..., None, None].clone() if half.ndim == 2 else half.clone()
        elif name.endswith((".token_mixer.proj.weight", ".conv_f.weight", ".conv_v.weight")):
            out[name] = value[..., None, None]
        else:
            out[name] = value
    return out


def expect_loaded(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    for key, value in weights.items():
        name, part = reference_name(key)
        place = state[name] if part is None else state[name].chunk(part[1])[part[0]]
        assert torch.equal(place, value.view(place.shape)), key


def expect_refused(model: torch.nn.Module, source, message: str) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message) as caught:
        pointmix.load_reference(model, source)
    assert "\n" not in str(caught.value)
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)


@pytest.mark.parametrize(
    "theirs, ours, part",
    [
        ("patch_embed.proj.weight", "stages.0.reducer.weight", None),
        ("network.0.1.norm1.weight", "stages.0.blocks.1.norm1.weight", None),
        ("network.3.proj.bias", "stages.2.reducer.bias", None),
        ("network.6.0.token_mixer.f.weight", "stages.3.blocks.0.mixer.qv.weight", (0, 2)),
        ("network.6.0.token_mixer.v.bias", "stages.3.blocks.0.mixer.qv.bias", (1, 2)),
        ("network.4.2.token_mixer.sim_alpha", "stages.2.blocks.2.mixer.alpha", None),
        ("network.4.2.layer_scale_2", "stages.2.blocks.2.scale2.gamma", None),
        ("norm6.weight", "norm.3.weight", None),
        ("norm.weight", "norm.weight", None),
        ("network.1.conv_skip.weight", "stages.1.reducer.skip.weight", None),
        ("network.3.conv_f.weight", "stages.2.reducer.query.weight", None),
        ("network.3.conv_v.bias", "stages.2.reducer.value.bias", None),
        ("network.5.norm2.weight", "stages.3.reducer.norm.weight", None),
        ("network.2.1.norm2.weight", "stages.1.blocks.1.norm2.weight", None),
        ("head.bias", "head.bias", None),
    ],
)
def test_names(theirs, ours, part):
    assert reference_name(theirs) == (ours, part)


@pytest.mark.parametrize("name", ["coc_tiny", "fec_small"])
def test_every_tensor_lands_in_its_place(name):
    model = model_of(name)
    weights = released(model)
    assert pointmix.load_reference(model, weights) is model
    expect_loaded(model, weights)
    assert sum(v.numel() for v in weights.values()) == sum(p.numel() for p in model.parameters())


def test_pyramid():
    model = model_of(pyramid=True)
    weights = released(model)
    weights = {k if not k.startswith("norm.") else f"norm{2 * int(k[5])}.{k[7:]}": v for k, v in weights.items()}
    assert {"norm0.weight", "norm6.bias"} < set(weights)
    expect_loaded(pointmix.load_reference(model, weights), weights)


WRAPPERS = {
    "bare": lambda w: w,
    "state_dict": lambda w: {"epoch": 3, "state_dict": w},
    "model": lambda w: {"model": w, "optimizer": {"state": {}}},
    "ema before plain": lambda w: {"state_dict": {k: v + 1 for k, v in w.items()}, "state_dict_ema": w},
    "module.": lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("as_file", [False, True])
def test_wrappers(wrapper, as_file, tmp_path):
    model = model_of()
    weights = released(model)
    source = WRAPPERS[wrapper](weights)
    if as_file:
        torch.save(source, tmp_path / "weights.pth")
        source = tmp_path / "weights.pth"
    expect_loaded(pointmix.load_reference(model, source), weights)


def test_a_checkpoint_of_timms_trainer(tmp_path):
    """It holds the trainer's arguments beside the weights."""
    model = model_of()
    weights = released(model)
    arguments = argparse.Namespace(model="coc_tiny", lr=1e-3, betas=(0.9, 0.999), mean=None)
    content = {"epoch": 309, "arch": "coc_tiny", "args": arguments, "metric": 71.8, "version": 2, "state_dict": weights}
    torch.save(content, tmp_path / "model_best.pth.tar")
    expect_loaded(pointmix.load_reference(model, tmp_path / "model_best.pth.tar"), weights)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors(prefix, tmp_path):
    model = model_of()
    weights = released(model)
    save_file({prefix + k: v.contiguous() for k, v in weights.items()}, tmp_path / "w.safetensors")
    expect_loaded(pointmix.load_reference(model, str(tmp_path / "w.safetensors")), weights)


def test_keeps_the_models_dtype():
    model = model_of().double()
    weights = released(model_of())
    pointmix.load_reference(model, weights)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert torch.equal(model.head.bias, weights["head.bias"].double())


def test_another_number_of_classes():
    expect_refused(model_of(), released(model_of(num_classes=7)), r"head.weight is \(7, 20\), the model has \(5, 20\)")


def test_missing_tensor():
    weights = released(model_of())
    del weights["network.0.0.norm1.weight"]
    expect_refused(model_of(), weights, r"nothing for stages.0.blocks.0.norm1.weight")


def test_missing_queries_and_values():
    weights = {k: v for k, v in released(model_of()).items() if "network.2.1.token_mixer.f.weight" != k}
    del weights["network.2.1.token_mixer.v.weight"]
    expect_refused(model_of(), weights, "nothing for stages.1.blocks.1.mixer.qv.weight")


@pytest.mark.parametrize("part", ["f", "v"])
def test_missing_half(part):
    weights = released(model_of())
    del weights[f"network.2.1.token_mixer.{part}.weight"]
    expect_refused(model_of(), weights, "nothing for stages.1.blocks.1.mixer.qv.weight")


def test_unused_tensors_are_counted():
    weights = released(model_of()) | {f"extra.{i}": torch.zeros(1) for i in range(5)}
    expect_refused(model_of(), weights, "no place for extra.0, extra.1, extra.2 and 2 more")


def test_another_family():
    coc, fec = model_of(), model_of("fec_small")
    expect_refused(coc, released(fec), "does not fit ContextClusters: no place for network.1.conv_skip.weight")
    expect_refused(fec, released(coc), "does not fit FEC: no place for network.1.proj.weight")


def test_another_variant():
    expect_refused(model_of(), released(model_of(depths=(1, 1, 1, 1))), "does not fit ContextClusters: nothing for")
    expect_refused(model_of(depths=(1, 1, 1, 1)), released(model_of()), "no place for network.2.1.norm1.weight")


def test_nothing_to_load(tmp_path):
    expect_refused(model_of(), {}, "the state dict holds no tensors")
    expect_refused(model_of(), {"state_dict": {"epoch": 3}}, "the state dict holds no tensors")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    expect_refused(model_of(), tmp_path / "empty.pth", "empty.pth holds no tensors")


def test_a_file_without_a_state_dict(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    expect_refused(model_of(), tmp_path / "list.pth", "list.pth")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nothing.pth"):
        pointmix.load_reference(model_of(), tmp_path / "nothing.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all"])
def test_unreadable_file(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    expect_refused(model_of(), tmp_path / name, f"{name} is not a readable checkpoint")


def test_truncated_file(tmp_path):
    torch.save(released(model_of()), tmp_path / "cut.pth")
    content = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    expect_refused(model_of(), tmp_path / "cut.pth", "cut.pth is not a readable checkpoint")


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("bare", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(bare, tmp_path):
    content = {"state_dict": released(model_of()), "trap": Trap(tmp_path / "sprung")}
    if bare:
        (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    else:
        torch.save(content, tmp_path / "trap.pth")
    expect_refused(model_of(), tmp_path / "trap.pth", "trap.pth is not a readable checkpoint")
    assert not (tmp_path / "sprung").exists()
