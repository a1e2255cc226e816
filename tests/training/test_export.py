"""What is exported works without this library, and is the network that was exported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model
from torch import Tensor, nn

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.models import build_backbone
from faster_isnet.models.weight_files import load_backbone_weights
from faster_isnet.training.export import FILES, TOLERANCE, _check_onnx, export

SHAPE = (3, 32, 32)
WEIGHTS = ("safetensors", "state_dict")

# Runs the ONNX file where neither this library nor torch can be imported.
STRANGER = """
import sys
sys.modules["faster_isnet"] = sys.modules["torch"] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], session.run(["logits"], {"images": images})[0])
"""


def trained(name: str, shape: tuple[int, int, int] = SHAPE) -> nn.Module:
    """Return a backbone that has made a step with the heatmap loss: in training mode."""
    net = ISNet(build_backbone(name, 3)).train()
    images, labels, masks = torch.rand(4, *shape), torch.tensor([0, 1, 2, 0]), torch.ones(4, *shape)
    masks[:, :, : shape[1] // 2] = 0
    ISNetLoss()(net.explain(images), labels, masks[:, :1]).total.backward()
    torch.optim.SGD(net.parameters(), 1e-4).step()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1  # statistics of what the weights now are, as after many steps
    net(images)
    return net.backbone


@pytest.fixture
def convnet() -> nn.Module:
    return trained("convnet")


def logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(images)  # type: ignore[no-any-return]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnet", 32),
        pytest.param("resnet18", 64, marks=SLOW),
        pytest.param("densenet121", 64, marks=SLOW),
        pytest.param("vgg11_bn", 32, marks=SLOW),
        pytest.param("timm:resnet10t", 64, marks=SLOW),
    ],
)
def test_onnx_runs_without_this_library(tmp_path: Path, name: str, size: int) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = trained(name, (3, size, size))
    path = export(model, tmp_path / "out", (3, size, size), ["onnx"])["onnx"]
    images = torch.rand(3, 3, size, size)
    np.save(tmp_path / "images.npy", images.numpy())
    subprocess.run(
        [sys.executable, "-c", STRANGER, path, "images.npy", "logits.npy"], cwd=tmp_path, check=True
    )
    found = torch.from_numpy(np.load(tmp_path / "logits.npy"))
    torch.testing.assert_close(found, logits(model, images), atol=TOLERANCE, rtol=0)


LOADER = """
import sys
import torch
assert not any(name.startswith("faster_isnet") for name in sys.modules)
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load("images.pt", weights_only=True)), "logits.pt")
"""


@pytest.mark.parametrize(
    ("name", "size"), [("convnet", 32), pytest.param("resnet18", 64, marks=SLOW)]
)
def test_a_program_runs_without_code_that_builds_it(tmp_path: Path, name: str, size: int) -> None:
    model = trained(name, (3, size, size))
    path = export(model, tmp_path / "out", (3, size, size), ["program"])["program"]
    images = torch.rand(3, 3, size, size)
    torch.save(images, tmp_path / "images.pt")
    subprocess.run([sys.executable, "-c", LOADER, path], cwd=tmp_path, check=True)
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(found, logits(model, images), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_weights_are_the_plain_networks(tmp_path: Path, name: str) -> None:
    model, images = trained(name, (3, 64, 64)), torch.rand(2, 3, 64, 64)
    written = export(model, tmp_path, (3, 64, 64), WEIGHTS)
    plain = torchvision.models.get_model(name, num_classes=3)
    plain.load_state_dict(torch.load(written["state_dict"], weights_only=True), strict=True)
    again = torchvision.models.get_model(name, num_classes=3)
    assert load_model(again, written["safetensors"], strict=True) == (set(), [])
    torch.testing.assert_close(logits(again, images), logits(plain, images), atol=0, rtol=0)
    if name == "resnet18":  # the papers' DenseNet has ReLUs that torchvision's has not
        torch.testing.assert_close(logits(plain, images), logits(model, images), atol=0, rtol=0)


def test_nothing_says_how_the_network_was_trained(tmp_path: Path, convnet: nn.Module) -> None:
    export(convnet, tmp_path, SHAPE, list(FILES))
    assert {path.name for path in tmp_path.iterdir()} == {*FILES.values(), "model.json"}
    for name, found in content(tmp_path).items():
        for trace in (b"isnet", b"ISNet", b"heatmap", b"site-packages", str(Path.cwd()).encode()):
            assert trace not in found, (name, trace)


def test_the_network_is_left_as_it_is(tmp_path: Path, convnet: nn.Module) -> None:
    convnet.classifier.requires_grad_(False)
    before = {key: value.clone() for key, value in convnet.state_dict().items()}
    export(convnet, tmp_path, SHAPE, WEIGHTS)
    assert all(module.training for module in convnet.modules())
    assert not convnet.classifier.weight.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in convnet.state_dict().items())


def test_the_description(tmp_path: Path, convnet: nn.Module) -> None:
    written = export(convnet, tmp_path, SHAPE, WEIGHTS, ["covid", "normal", "Lungenentzündung"])
    assert list(written) == [*WEIGHTS, "description"]
    description = json.loads(written["description"].read_text(encoding="utf-8"))
    assert description["architecture"] == "Sequential"
    assert description["output"]["class_names"] == ["covid", "normal", "Lungenentzündung"]
    assert description["input"]["shape"] == ["batch", *SHAPE]
    assert description["input"]["range"] == [0, 1]
    assert description["versions"]["torch"] == version("torch")
    for name in WEIGHTS:
        assert written[name] == tmp_path / description["files"][name]


numbers = st.floats(-2, 2, width=32)


@settings(max_examples=20)
@given(
    st.lists(numbers, min_size=3, max_size=3),
    st.lists(st.floats(0.125, 4, width=32), min_size=3, max_size=3),
    numbers,
    st.floats(0.125, 4, width=32),
)
def test_the_example_tells_a_right_network_from_a_wrong_one(
    tmp_path_factory: pytest.TempPathFactory,
    mean: list[float],
    std: list[float],
    low: float,
    width: float,
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    folder = tmp_path_factory.mktemp("out")
    options: Any = {"mean": mean, "std": std, "value_range": (low, low + width)}
    written = export(model, folder, (3, 2, 2), ["safetensors"], architecture="linear", **options)
    description = json.loads(written["description"].read_text())
    assert description["architecture"] == "linear"
    stated = description["input"]
    rebuilt = load_backbone_weights(
        written["safetensors"], nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    )
    pixels = torch.full((1, 3, 2, 2), description["example"]["all_pixels"])
    mean_, std_ = (torch.tensor(stated[key])[:, None, None] for key in ("mean", "std"))
    found, expected = rebuilt((pixels - mean_) / std_)[0], description["example"]["logits"]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-4)


class Tied(nn.Module):
    """A network two layers of which share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = (nn.Linear(4, n) for n in (4, 4, 2))
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x.flatten(1)).relu()))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", WEIGHTS)
def test_shared_weights(tmp_path: Path, name: str) -> None:
    model, images = Tied(), torch.rand(3, 1, 2, 2)
    path = export(model, tmp_path, (1, 2, 2), WEIGHTS)[name]
    torch.testing.assert_close(logits(load_backbone_weights(path, Tied()), images), model(images))
    if name == "safetensors":
        load_model(Tied(), path, strict=True)


class Branching(nn.Sequential):
    """A network whose way depends on the pixels, which ONNX cannot hold."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)  # type: ignore[no-any-return]


class Noisy(nn.Sequential):
    """A network that never says the same again."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, training=True))  # type: ignore[no-any-return]


class Pairs(nn.Sequential):
    """A network that takes two images at a time and no other number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(2, -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Branching,
            r"Branching cannot be written as {}, for batches .* \(.{{,200}}\); choose",
        ),
        (Noisy, r"the logits of the {} differ by \d.* from the network's"),
        (Pairs, r"does not run on torch.float32 images \[1, 1, 2, 2\]"),
    ],
)
@pytest.mark.parametrize(("name", "what"), [("onnx", "ONNX file"), ("program", "program")])
def test_a_network_that_a_format_cannot_hold_leaves_nothing(
    tmp_path: Path, name: str, what: str, kind: type[nn.Sequential], message: str
) -> None:
    old = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    export(old, tmp_path / "old", (1, 2, 2), WEIGHTS)
    before = content(tmp_path)
    for folder in ("old", "new/deeper"):
        network = kind(nn.Flatten(), nn.Linear(4, 2))
        with pytest.raises(ValueError, match=message.format(what)):
            export(network, tmp_path / folder, (1, 2, 2), ["state_dict", name])
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def not_finite() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    nn.init.constant_(model[1].bias, torch.nan)
    return model


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"formats": ["onx"]}, ValueError, "unknown format 'onx'; did you mean 'onnx'"),
        ({"backbone": "resnet18"}, TypeError, "backbone must be a torch.nn.Module, got str"),
        ({"backbone": not_finite()}, ValueError, "logits are NaN or infinite"),
        (
            {"image_shape": (3, 5, 5)},
            ValueError,
            r"does not run on .* \[1, 3, 5, 5\] .*give the im",
        ),
        ({"image_shape": (2, 2)}, ValueError, r"image_shape must be \(C, H, W\)"),
        ({"class_names": ["a"]}, ValueError, r"has 1 names \(a\), the network has 2 classes"),
        ({"mean": [0.5] * 3}, ValueError, "mean and std go together"),
        ({"mean": [0.5], "std": [0.5]}, ValueError, "one value for each of the 3 channels"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, ValueError, "std must be positive"),
        ({"value_range": (1.0, 0.0)}, ValueError, "with low < high, got 1.0, 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    fitting: dict[str, Any] = {
        "backbone": nn.Sequential(nn.Flatten(), nn.Linear(12, 2)),
        "image_shape": (3, 2, 2),
        "formats": WEIGHTS,
    }
    with pytest.raises(error, match=message):
        export(**{"out": tmp_path / "out", **fitting, **changes})
    assert not (tmp_path / "out").exists()


def test_what_trains_or_runs_a_network_is_refused(tmp_path: Path, convnet: nn.Module) -> None:
    net = ISNet(convnet)
    for model, cure in [
        (net, r"'' is of type ISNet.* export its \.backbone"),
        (LitISNet(net), r"'net' is of type ISNet.* export its \.backbone"),
        (nn.DataParallel(convnet), r"'' is of type DataParallel.* export its \.module"),
        (torch.compile(convnet), r"'' is of type OptimizedModule.* export its \._orig_mod"),
    ]:
        with pytest.raises(TypeError, match=cure):
            export(model, tmp_path / "out", SHAPE, WEIGHTS)  # type: ignore[arg-type]


def test_missing_packages_are_named(
    tmp_path: Path, convnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install 'faster-isnet\[onnx\]'"):
        export(convnet, tmp_path / "out", SHAPE)
    assert not (tmp_path / "out").exists()
    export(convnet, tmp_path / "out", SHAPE, WEIGHTS)


def test_where_it_cannot_be_written(tmp_path: Path, convnet: nn.Module) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file; name a folder"):
        export(convnet, tmp_path / "file", SHAPE, WEIGHTS)
    (tmp_path / "out" / "model.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"model\.json is a folder; move it"):
        export(convnet, tmp_path / "out", SHAPE, WEIGHTS)
    assert content(tmp_path / "out") == {}


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, convnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(convnet, tmp_path, SHAPE, WEIGHTS)
    before = content(tmp_path)

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    nn.init.zeros_(convnet.classifier.weight)
    with pytest.raises(OSError, match="no space left"):
        export(convnet, tmp_path, SHAPE, WEIGHTS)
    assert content(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="umask")
def test_files_can_be_read_by_whom_the_umask_lets(tmp_path: Path, convnet: nn.Module) -> None:
    other = tmp_path / "other"
    other.touch()
    for path in export(convnet, tmp_path, SHAPE, WEIGHTS).values():
        assert path.stat().st_mode == other.stat().st_mode


def test_a_pixel_at_a_threshold_may_be_decided_either_way(tmp_path: Path) -> None:
    """Rounding decides it, in onnxruntime as in torch; a threshold that differs by more is seen."""

    class Threshold(nn.Module):
        def __init__(self, least: float) -> None:
            super().__init__()
            self.least = least

        def forward(self, images: Tensor) -> Tensor:
            return (images.flatten(1) > self.least).float().mean(1, keepdim=True).expand(-1, 2)

    shape = (1, 4, 4)
    pixels = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))  # as it is tested
    least = float(pixels.flatten()[5])
    export(Threshold(least * (1 - 2e-7)), tmp_path, shape, ["onnx"])
    batches = [pixels]
    _check_onnx(tmp_path / "model.onnx", Threshold(least * (1 + 2e-7)), batches)
    with pytest.raises(ValueError, match="the logits of the ONNX file differ by"):
        _check_onnx(tmp_path / "model.onnx", Threshold(least + 0.2), batches)
