"""The scripts of the examples run as their pages say."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from faster_isnet import ISNetLoss
from faster_isnet.common.batch import Batch
from faster_isnet.data.sample_tables import from_table

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--bias", "stripes"],
        ["--bias", "mark", "--composite", "flex", "--swap", "1", "--network", "hybrid"],
    ],
)
def test_a_network_is_trained_on_digits_with_a_shortcut(options: list[str]) -> None:
    found = json.loads(run("attention/shortcuts.py", "--epochs", 1, *options))
    assert {0 <= found[test] <= 100 for test in ("biased", "unbiased", "deceiving")} == {True}
    if options == ["--bias", "stripes"]:  # they are learnt at once
        assert found["biased"] > 3 * found["deceiving"]


def test_images_of_a_study_are_prepared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def save(path: Path, values: NDArray[np.uint8]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)

    half = np.repeat(np.array([[0, 255]], dtype=np.uint8), 40, 1).repeat(90, 0)
    columns = {"butterflies": [], "wbc": ["dataset"], "covid-cxr": []}
    for folder, more in columns.items():
        rows = [",".join(["image", "label", "mask", *more])]
        for number in range(20):
            label = ("basophil", "covid", "a", "b")[number % 4]
            image, mask = f"images/{number}.png", f"masks/{number}.png"
            save(tmp_path / folder / image, rng.integers(0, 255, (90, 80, 3), dtype=np.uint8))
            save(tmp_path / folder / mask, half)
            rows.append(",".join([image, label, mask, *(str(1 + number // 10) for _ in more)]))
        (tmp_path / folder / "images.csv").write_text("\n".join(rows))
    lungs = "\n".join(["image,mask", *(f"x/{number}.png,{number}.png" for number in range(20))])
    (tmp_path / "covid-cxr" / "masks" / "masks.csv").write_text(lungs)

    out = tmp_path / "out"
    run("study/prepare.py", tmp_path, out, "--lungs", tmp_path / "covid-cxr" / "masks")
    read = {name: from_table(out / f"{name}.csv")[0] for name in ("butterflies", "radiographs")}
    assert [len(samples) for samples in read.values()] == [20, 15]  # without covid
    sample = read["radiographs"][0]
    assert sample.read_image().shape == (3, 64, 64)
    mask = sample.read_mask((64, 64))
    assert mask is not None
    assert mask[..., 32:].all()
    assert not mask[..., :32].any()
    ours, others = (from_table(out / f"cells{more}.csv")[0] for more in ("", "-other"))
    assert {each.split for each in ours} == {"train", "val", "test"}
    assert len(ours) + len(others) == 15  # without basophils
    assert {each.split for each in others} == {None}


@pytest.mark.slow
def test_networks_are_surveyed(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("timm:vit_tiny_patch16_224\ntorchvision:resnet18\ntimm:no_such_network\n")
    table, rows = tmp_path / "models.md", tmp_path / "rows.jsonl"
    for _ in range(2):  # the second time from what is kept
        run("models/survey.py", "--names", names, "--out", table, "--rows", rows)
    assert len(rows.read_text().splitlines()) == 3
    text = table.read_text()
    assert "3 networks: 2 conserve relevance" in text
    assert "| timm:no_such_network | | | | | | no: RuntimeError" in text


@pytest.mark.slow
def test_explanations_are_compared_by_flipping_patches(tmp_path: Path) -> None:
    pytest.importorskip("lxt.explicit.rules", reason="run: pip install --no-deps lxt")
    rng = np.random.default_rng(0)
    rows = ["image,label"]
    for number in range(60):
        pixels = rng.integers(0, 100, (48, 48, 3), dtype=np.uint8)
        left = 24 * (number % 2)
        pixels[12:36, left : left + 24] = 250  # the class is the side of a bright square
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'left' if number % 2 == 0 else 'right'}")
    table = tmp_path / "images.csv"
    table.write_text("\n".join(rows))
    out = tmp_path / "out"
    run("attention/faithfulness.py", out, "--images", table, "--seeds", 0, "--steps", 60)
    areas = np.load(out / "areas.npz")
    flex = areas["flex/mean/0"].mean()
    assert flex > areas["random order/mean/0"].mean()
    assert areas["LXT (AttnLRP)/mean/0"].mean() == pytest.approx(flex, rel=0.2)
    assert "| Chefer et al. |" in (out / "faithfulness.md").read_text()


def test_a_soft_border_of_the_recipes_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "recipe")
    method = import_module("variants").Variant(soft_border=1.0, generated_backgrounds=1.0)
    masks = torch.zeros(4, 1, 24, 24)
    masks[..., 8:16, 8:16] = 1
    batch = Batch(torch.rand(4, 3, 24, 24), torch.tensor([0, 1, 0, 1]), masks)
    changed = (method.training_images(batch) - batch.images).abs().mean((0, 1))
    assert changed[8:16, 8:16].max() < 1e-6
    assert 0 < changed[7, 8:16].mean() < 0.5 * changed[:3].mean()


@pytest.mark.parametrize("gradients", ["sum", "norm", "project"])
def test_gradients_of_the_recipes_variants(gradients: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "recipe")
    variants = import_module("variants")
    method = variants.Variant(
        ISNetLoss(0.5, cut_low=0.2, cut_high=5.0), gradients=gradients, swapped_backgrounds=0.0
    )
    torch.manual_seed(2)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    network = method.build(nn.Sequential(*layers))
    masks = torch.zeros(4, 1, 12, 12)
    masks[..., 4:8, 4:8] = 1
    batch = Batch(torch.rand(4, 3, 12, 12), torch.tensor([0, 1, 0, 1]), masks)
    parameters = list(network.parameters())

    def gradient(loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])

    losses = method.training_losses(network, batch)
    first, second = gradient(losses.classification), gradient(losses.parts["heatmap"])
    found = 2 * gradient(losses.total)
    if gradients == "sum":
        torch.testing.assert_close(found, first + second)
    elif gradients == "norm":
        torch.testing.assert_close(found, first + second * first.norm() / second.norm())
    else:
        assert first @ second < 0  # else nothing is projected
        assert not torch.allclose(found, first + second)
        of_first, of_second = (
            a - (a @ b) / (b @ b) * b for a, b in ((first, second), (second, first))
        )
        assert abs(of_first @ second) < 1e-5 * first.norm() * second.norm()
        torch.testing.assert_close(found, of_first + of_second)
        for each in (first, second):
            assert found @ each >= -1e-6 * found.norm() * each.norm()
