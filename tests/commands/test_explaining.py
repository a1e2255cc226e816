"""explain, of a network by its name whose weights are in a file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faster_isnet import Explainer
from faster_isnet.cli import main
from faster_isnet.models import build_backbone


@pytest.fixture
def network(tmp_path: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_backbone("convnet", 4).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return network


def explain(folder: Path, *options: str) -> int:
    """Explain the image that the fixture has made."""
    given = ["convnet", str(folder / "image.png"), "--classes", "4", "--size", "32"]
    given += ["--weights", str(folder / "weights.pt"), "--out", str(folder / "out")]
    return main(["explain", *given, *options])


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {"input_rule": "zb"}),
        (["--input-rule", "none"], {"input_rule": None}),
        (["--input_rule=null"], {"input_rule": None}),
        (["--input-rule", "w2"], {"input_rule": "w2"}),
        (["--input-low", "-1", "--input-high", "2"], {"input_low": -1.0, "input_high": 2.0}),
        (["--input-low", "[-1, -2, -3]"], {"input_low": [-1.0, -2.0, -3.0]}),
        (["--composite", "epsilon", "--epsilon", "0.1"], {"composite": "epsilon", "epsilon": 0.1}),
    ],
)
def test_options_of_the_explainer_reach_it(
    options: list[str], settings: dict, network: torch.nn.Module, tmp_path: Path
) -> None:
    assert explain(tmp_path, *options, "--target", "2") == 0
    (file,) = (tmp_path / "out").glob("*.npy")
    with Image.open(tmp_path / "image.png") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    expected = Explainer(network, **{"input_rule": "zb", **settings})(pixels, 2).heatmap[0, 0]
    torch.testing.assert_close(torch.from_numpy(np.load(file)), expected)
    default = Explainer(network, input_rule="zb")(pixels, 2).heatmap[0, 0]
    assert bool(options) == (not torch.allclose(expected, default))


@pytest.mark.parametrize(
    ("target", "classes"), [("3", ["3"]), ("all", ["0", "1", "2", "3"]), ("all-logits", ["all"])]
)
def test_the_target_is_a_class_all_of_them_or_a_quantity(
    target: str, classes: list[str], network: torch.nn.Module, tmp_path: Path
) -> None:
    assert explain(tmp_path, "--target", target, "--formats", "npy") == 0
    with (tmp_path / "out" / "explanations.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == classes


def test_a_mistyped_target_names_the_nearest(
    network: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(tmp_path, "--target", "predictd") == 2
    assert "did you mean 'predicted'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_it_prints_how_exactly_the_network_is_explained(
    network: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(tmp_path, "--formats", "npy") == 0
    printed = capsys.readouterr().out
    assert "how exactly 'flex' explains this network" in printed
    assert "unknown, passed by its gradient: none" in printed
    assert "conservation error without biases: " in printed
