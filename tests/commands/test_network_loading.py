"""Networks that others have trained, by a name, from code and from files: what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from faster_isnet.commands.network_loading import NetworkOptions, is_of_fit, load_model
from faster_isnet.common.resizing import STRETCHED, Resizing
from faster_isnet.models import build_backbone
from faster_isnet.training.export import export


def test_the_network_is_as_its_weights_say(tmp_path: Path) -> None:
    trained = build_backbone("convnet", 3)
    path = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), path)
    bundle = load_model("convnet", NetworkOptions(weights=path, classes=3, size=32))
    assert not bundle.network.training
    for name, value in bundle.network.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name
    assert bundle.class_names == ["0", "1", "2"]
    assert bundle.names_no_classes
    assert bundle.normalisation == "pixels in [0, 1], as they are"


def test_that_weights_of_a_file_say_nothing_of_the_normalisation_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(build_backbone("efficientnet_v2_l", 2).state_dict(), path)
    options = NetworkOptions(weights=path, classes=2, size=32)
    load_model("efficientnet_v2_l", options)
    said = "add --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 --crop_mode center --crop_pct 1 "
    assert f"{said}--interpolation bicubic" in caplog.text
    caplog.clear()
    load_model("efficientnet_v2_l", replace(options, mean=[0.5], std=[0.5]))
    torch.save(build_backbone("convnet", 2).state_dict(), path)
    load_model("convnet", options)  # which nobody has published
    assert not caplog.records


def test_a_published_network_keeps_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    published = torchvision.models.resnet18(weights=None)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: published)
    bundle = load_model("resnet18", NetworkOptions(size=32))
    assert bundle.class_names[323] == "monarch"
    assert bundle.preprocessing.startswith(
        "RGB, resized to a shorter side of 36 pixels (bilinear), of which the middle 32 x 32 are "
        "kept; (x − mean) / std with mean [0.485, 0.456, 0.406]"
    )
    stretching = NetworkOptions(size=32, crop_mode="squash", crop_pct=1.0)
    assert load_model("resnet18", stretching).resizing == STRETCHED
    images = torch.rand(2, 3, 32, 32)
    mean, std = (
        torch.tensor(each)[:, None, None] for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    with torch.no_grad():
        expected = published.eval()((images - mean) / std)
        torch.testing.assert_close(bundle.network(images), expected)
    with pytest.raises(ValueError, match=r"weights of resnet18 have 1000 classes, not 10; a head"):
        load_model("resnet18", NetworkOptions(size=32, classes=10))
    with pytest.raises(ValueError, match="no run or file 'resnet81', and no such network"):
        load_model("resnet81")


def test_an_image_is_prepared_as_torchvision_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = torchvision.models.resnet18(weights=None)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: published)
    path = tmp_path / "smooth.png"
    pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 12), (270, 360), mode="bicubic")
    torchvision.utils.save_image(pixels.clamp(0, 1), path)
    bundle = load_model("resnet18")
    with Image.open(path) as image:
        expected = torchvision.models.ResNet18_Weights.DEFAULT.transforms()(image)
    normalised = bundle.network.get_submodule("normalise")(bundle.prepare(path)[None])[0]
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-2 / 0.225)


def test_what_a_network_says_of_its_images_is_told_by_its_onnx_file(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2)).eval()
    resizing = Resizing("center", 0.875, "bicubic")
    export(network, tmp_path, (3, 8, 8), ["onnx"], resizing=resizing)
    path = str(tmp_path / "model.onnx")
    assert load_model(path).resizing == resizing
    assert load_model(path, NetworkOptions(crop_pct=1.0)).resizing == replace(resizing, crop_pct=1)
    export(network, tmp_path, (3, 8, 8), ["onnx"])
    assert load_model(path).resizing == STRETCHED


def test_a_run_is_one_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("resnet18").mkdir()
    assert not is_of_fit("resnet18")
    Path("resnet18", "checkpoints").mkdir()
    assert is_of_fit("resnet18")


class Probabilities(torch.nn.Module):
    def __init__(self, last: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.last = torch.nn.Linear(3 * 8 * 8, 3), last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.network(images.flatten(1)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("last", "task"), [(torch.nn.Softmax(1), "multiclass"), (torch.nn.Sigmoid(), "multilabel")]
)
def test_probabilities_are_not_taken_for_logits(
    tmp_path: Path, last: torch.nn.Module, task: str
) -> None:
    network = Probabilities(last).eval()
    export(network, tmp_path, (3, 8, 8), ["onnx"], ["a", "b", "c"], task=task)
    path = str(tmp_path / "model.onnx")
    with pytest.raises(
        ValueError, match=r"seem to be probabilities, .* say which they are: --outputs"
    ):
        load_model(path)
    bundle = load_model(path, NetworkOptions(outputs="probabilities"))
    assert bundle.task == task  # by the description
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        found = bundle.network(images)
        again = found.softmax(1) if task == "multiclass" else found.sigmoid()
        torch.testing.assert_close(again.float(), network(images), rtol=1e-4, atol=1e-5)
    other = "multilabel" if task == "multiclass" else "multiclass"
    with pytest.raises(ValueError, match=f"--task is {other}, but the description"):
        load_model(path, NetworkOptions(task=other))


def test_names_options_and_preprocessing_are_those_that_are_given(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(build_backbone("convnet", 2, channels=1).state_dict(), path)
    (tmp_path / "names.txt").write_text("no\n\nyes\n")
    options = NetworkOptions(
        path, 2, 16, 1, mean=[0.5], std=[0.25], class_names=str(tmp_path / "names.txt")
    )
    bundle = load_model("convnet", options)
    assert bundle.class_names == ["no", "yes"]
    assert bundle.image_shape == (1, 16, 16)
    assert bundle.preprocessing == (
        "grey, resized to 16 x 16 pixels (bilinear; the aspect ratio is not kept); (x − mean) / "
        "std with mean [0.5] and std [0.25] (as given)"
    )
    image = torch.rand(1, 1, 16, 16)
    plain = load_model("convnet", NetworkOptions(path, 2, 16, 1))
    with torch.no_grad():
        expected = plain.network((image - 0.5) / 0.25)
        torch.testing.assert_close(bundle.network(image), expected)
