from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "describe.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("describe_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def told(main, capsys, *argv):
    """Cells of each line that is printed."""
    assert main(list(argv)) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in lines[1:]]
    return lines[0], {row[0]: row[1:] for row in rows}


def test_counts_beside_the_published_figures(main, capsys):
    title, rows = told(main, capsys, "coc_tiny")
    assert title == "coc_tiny on 224 x 224 pixels, 1000 classes"
    assert rows["parameters"] == ["5,570,584", "5.571 M", "5.313 Mi", "5.3 M: 5.313 x 2^20"]
    assert rows["MACs conv + linear"] == ["1,086,918,912", "1.087 G", "1.012 Gi", ""]
    assert rows["MACs + matrix products"] == ["1,092,563,712", "1.093 G", "1.018 Gi", ""]
    assert rows["MACs + norms, pooling"] == ["1,102,716,512", "1.103 G", "1.027 Gi", "1.0 G: 1.027 x 2^30"]
    assert rows["stage 1"] == ["56 x 56", "32", "64", "4", "257.3", "81,510"]
    assert rows["stage 4"] == ["7 x 7", "320", "1", "4", "126.4", "2,580,292"]
    assert rows["all"][-2:] == ["1102.7", "5,570,584"]


def test_segmenters_beside_the_published_figures(main, capsys):
    title, rows = told(main, capsys, "hcformer_nano", "--task=segment")
    assert title == "hcformer_nano on 512 x 512 pixels, pad always, 150 classes"
    assert rows["parameters"] == ["9,237,832", "9.238 M", "8.810 Mi", "8.8 M: 8.810 x 2^20"]
    assert rows["MACs conv + linear"][2:] == ["24.017 Gi", "24.0 G: 24.017 x 2^30"]
    assert rows["semantic FPN"][-1] == "4,136,598"
    title, rows = told(main, capsys, "fec_small", "--task=segment", "--kwargs.centers_per_side=[4,4,2,2]")
    assert title == "fec_small on 512 x 512 pixels, 150 classes" and len(rows["parameters"]) == 3
    title, rows = told(main, capsys, "resnet18", "--task=segment", "--img_size=64", "--num_classes=7")
    assert title == "resnet18 on 64 x 64 pixels, 7 classes" and rows["maps 1"][0] == "16 x 16"
    title, rows = told(main, capsys, "swin_tiny_patch4_window7_224", "--task=segment", "--img_size=64")
    assert title == "swin_tiny_patch4_window7_224 on 64 x 64 pixels, 150 classes" and rows["maps 4"][0] == "2 x 2"
    title, _ = told(main, capsys, "coc_tiny", "--task=segment", "--in_chans=0", "--kwargs.coord_dims=3", "--points=800")
    assert title == "coc_tiny on 800 points, 150 classes"


def test_detectors_beside_the_published_figures(main, capsys):
    title, rows = told(main, capsys, "hcformer_nano", "--task=detect")
    assert title == "hcformer_nano on 1280 x 800 pixels, pad always, 80 classes"
    assert rows["parameters"] == ["25,138,594", "25.139 M", "23.974 Mi", "24.0 M: 23.974 x 2^20"]
    assert rows["MACs conv + linear"][2:] == ["174.087 Gi", "173.5 G: 174.087 x 2^30"]
    assert [rows[part][1] for part in ("FPN", "RPN", "box head", "mask head")] == ["256", "256", "1024", "256"]
    title, rows = told(main, capsys, "coc_tiny", "--task=detect", "--img_size=64", "--kwargs.masks=false")
    assert title == "coc_tiny on 64 x 64 pixels, 80 classes" and "mask head" not in rows
    title, rows = told(main, capsys, "resnet18", "--task=detect", "--img_size=64", "--num_classes=7")
    assert title == "resnet18 on 64 x 64 pixels, 7 classes" and rows["maps 1"][0] == "16 x 16"


def test_published_figures_are_of_their_own_settings(main, capsys):
    for argv in (["--num_classes=10"], ["--img_size=32"], ['--kwargs={"heads": 2}']):
        _, rows = told(main, capsys, "coc_tiny", *argv)
        assert len(rows["parameters"]) == 3
    assert rows["stage 1"][:2] == ["56 x 56", "32"]


def test_clouds(main, capsys):
    title, rows = told(main, capsys, "pointmlp_elite", "--points", "200")
    assert title == "pointmlp_elite on 200 points, 40 classes"
    assert rows["parameters"][0] == "716,232"
    assert rows["stage 1"][:4] == ["100", "64", "100", "-"] and rows["embedding"][:2] == ["", "32"]
    title, rows = told(main, capsys, "coc_tiny", "--in_chans=2", "--kwargs.coord_dims=3", "--points=800")
    assert title == "coc_tiny on 800 points, 1000 classes" and rows["stage 1"][0] == "50"


def test_any_model_of_timm(main, capsys):
    title, rows = told(main, capsys, "test_vit", "--img_size=96", "--in_chans=1", "--num_classes=3")
    assert title == "test_vit on 96 x 96 pixels, 3 classes"
    assert "stage 1" not in rows and "MACs + norms, pooling" not in rows and rows["MACs + matrix products"][0] != "0"


def test_a_column_for_centers_over_all_windows(main, capsys):
    _, rows = told(main, capsys, "coc_tiny")
    assert rows["stage 2"][2:5] == ["16", "4", "281.6"]
    _, rows = told(main, capsys, "hcformer_tiny")
    assert [rows[f"stage {i}"][2:5] for i in (1, 2, 3, 4)] == [
        ["49", "16", "16"], ["49", "4", "16"], ["1", "49", "1"], ["1", "16", "-"],
    ]  # fmt: skip
    assert rows["norm, head"][:5] == ["", "320", "", "", ""]


@pytest.mark.parametrize(
    "argv, names",
    [
        (["coc_huge"], "no model 'coc_huge'"),
        (["coc_huge", "--task=segment"], "no model 'coc_huge'"),
        (["deit_tiny_patch16_224", "--task=segment"], "needs strides 4, 8"),
        (["coc_tiny", "--task=segment", "--num_classes=0"], "num_classes must be at least 1, got 0"),
        (["coc_tiny", "--task=depth"], "task"),
        (["coc_huge", "--task=detect"], "no model 'coc_huge'"),
        (["pointmlp", "--task=detect"], "a backbone of images"),
        (["coc_tiny", '--kwargs={"nonsense": 1}'], "nonsense"),
        (["coc_tiny", "--kwargs=3"], "kwargs"),
        (["coc_tiny", "--img_size=0"], "img_size must be at least 1, got 0"),
        (["test_vit", '--kwargs={"patch_size": 1000}'], "test_vit"),
        (["coc_tiny", "--nonsense"], "nonsense"),
        ([], "model"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(main, capsys, argv, names):
    assert main(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and names in error[0]
