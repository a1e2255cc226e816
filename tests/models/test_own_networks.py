"""Networks that were built elsewhere: what is loaded of them, and what is known of their images."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from faster_isnet.commands.network_loading import NetworkOptions, load_model
from faster_isnet.models.own_networks import (
    OnnxNetwork,
    input_shape_of,
    is_torchscript,
    load_torchscript,
    network_from_code,
    statistics_of,
)
from faster_isnet.training.export import export, read_description


def onnx_file(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """Write a network that returns the sum of each channel."""
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["images", "axes"], ["logits"], keepdims=0)],
        "sums",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, None)],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_onnx_runs_whatever_its_batch(tmp_path: Path, batch: int | str) -> None:
    network = OnnxNetwork(onnx_file(tmp_path / "sums.onnx", [batch, 3, 8, 8]))
    assert network.image_shape == (3, 8, 8)
    images = torch.rand(7, 3, 8, 8)
    torch.testing.assert_close(network(images), images.sum((2, 3)))


def test_onnx_of_anything_else_is_refused(tmp_path: Path) -> None:
    doubles = onnx_file(tmp_path / "doubles.onnx", [1, 3, 8, 8], TensorProto.DOUBLE)
    volumes = onnx_file(tmp_path / "volumes.onnx", [1, 3, 8, 8, 8])
    for path in (doubles, volumes):
        with pytest.raises(ValueError, match="expected one input of float32 images"):
            OnnxNetwork(path)
    (tmp_path / "damaged.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="no ONNX file that can be run"):
        OnnxNetwork(tmp_path / "damaged.onnx")


def test_torchscript_is_known_by_its_content(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    torch.jit.trace(network, torch.zeros(1, 3, 2, 2)).save(str(tmp_path / "traced.pt"))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    assert is_torchscript(tmp_path / "traced.pt")
    assert not is_torchscript(tmp_path / "weights.pt")
    images = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(load_torchscript(tmp_path / "traced.pt")(images), network(images))
    with pytest.raises(ValueError, match="no TorchScript file"):
        load_torchscript(tmp_path / "weights.pt")


def test_code_is_found_in_the_working_directory_and_its_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "networks_of_a_user.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Linear(3, 2)\n"
    )
    trained = nn.Linear(3, 2)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    network = network_from_code("networks_of_a_user:build", tmp_path / "weights.pt")
    assert sys.path == before
    assert not network.training
    assert isinstance(network, nn.Linear)
    torch.testing.assert_close(network.weight, trained.weight)


def test_the_configuration_of_timm_is_read() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    assert statistics_of(network) == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert input_shape_of(network) == (3, 224, 224)
    assert statistics_of(nn.Linear(2, 2)) is None
    assert input_shape_of(nn.Linear(2, 2)) is None


def test_pixels_are_normalised_as_the_exported_network_wants_them(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2)).eval()
    export(
        network,
        tmp_path,
        (3, 4, 4),
        ["onnx"],
        ["no", "yes"],
        value_range=(-50.0, 205.0),
        mean=[100.0, 110.0, 120.0],
        std=[50.0, 60.0, 70.0],
    )
    bundle = load_model(str(tmp_path / "model.onnx"))
    assert bundle.class_names == ["no", "yes"]
    assert bundle.image_shape == (3, 4, 4)
    assert not bundle.differentiable
    images = torch.rand(5, 3, 4, 4)
    mean, std = (torch.tensor(each)[:, None, None] for each in ([100.0, 110, 120], [50.0, 60, 70]))
    with torch.no_grad():
        expected = network((255 * images - 50 - mean) / std)
    torch.testing.assert_close(bundle.network(images), expected, rtol=1e-4, atol=1e-4)
    given = load_model(str(tmp_path / "model.onnx"), NetworkOptions(mean=[0.0], std=[1 / 255]))
    assert "(as given)" in given.preprocessing
    with torch.no_grad():
        torch.testing.assert_close(
            given.network(images), network(255 * images), rtol=1e-4, atol=1e-3
        )
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ValueError, match=r"does not describe model.onnx"):
        read_description(tmp_path / "model.onnx")
    (tmp_path / "model.json").unlink()
    assert read_description(tmp_path / "model.onnx") is None
