"""Weights out of files: found under their wrappers, and never run."""

from __future__ import annotations

import logging
import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.models import build_backbone
from faster_isnet.models.weight_files import load_backbone_weights, load_published_checkpoint

State = dict[str, Tensor]


class Small(nn.Module):
    """A backbone with batch norm, a pool that holds something, and nested sequences."""

    def __init__(self, classes: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.maxpool = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))
        self.layer1 = nn.Sequential(nn.Sequential(nn.Conv2d(4, 5, 1)), nn.ReLU())
        self.fc: nn.Module = nn.Linear(5, classes)
        if dropout:
            self.fc = nn.Sequential(nn.Dropout(dropout), self.fc)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layer1(self.maxpool(self.bn1(self.conv1(x)).relu()))
        return self.fc(features.mean((2, 3)))  # type: ignore[no-any-return]


def trained() -> Small:
    model = Small()
    model(torch.rand(4, 3, 8, 8))  # running statistics
    return model


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def written(folder: Path, content: object) -> Path:
    torch.save(content, folder / "isnet.ckpt")
    return folder / "isnet.ckpt"


def lightning_content(state: State) -> dict[str, Any]:
    """Return what Lightning writes besides the state dict."""
    return {
        "epoch": 47,
        "global_step": 123,
        "pytorch-lightning_version": "1.8.6",
        "state_dict": state,
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": state}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.rand(3)}}}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"P": {0: 0.7, 10: 0.8}, "architecture": "resnet18", "model": None},
    }


def same(model: nn.Module, state: State) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "prefix",
    ["", "model.model.", "classifierDNN.", "DNN.", "module.model.model.", "model.model.module."],
)
def test_round_trip_under_any_prefix(tmp_path: Path, prefix: str) -> None:
    state, backbone = trained().state_dict(), Small().eval()
    path = written(tmp_path, lightning_content(prefixed(state, prefix)))
    assert load_published_checkpoint(path, backbone) is backbone
    assert same(backbone, state)
    assert not backbone.training
    x = torch.rand(2, 3, 8, 8)
    model = trained().eval()
    model.load_state_dict(state)
    torch.testing.assert_close(backbone(x), model(x), atol=0, rtol=0)


def test_a_checkpoint_that_lightning_wrote(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

    class Module(lightning.LightningModule):
        def __init__(self, classes: int = 3, decay: dict[int, float] | None = None) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = Wrapper(Small(classes))

        def training_step(self, batch: Tensor, _: int) -> Tensor:
            return self.model.model(batch).square().mean()  # type: ignore[operator]

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [1])]

    module = Module(decay={0: 0.7})
    trainer = lightning.Trainer(
        **{"max_steps": 2, "accelerator": "cpu", "default_root_dir": tmp_path, "logger": False},
        **{"enable_progress_bar": False, "enable_model_summary": False},
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.rand(4, 3, 8, 8), batch_size=2))
    trainer.save_checkpoint(tmp_path / "isnet.ckpt")
    backbone = load_published_checkpoint(tmp_path / "isnet.ckpt", Small())
    assert same(backbone, module.model.model.state_dict())  # type: ignore[arg-type, operator]


def test_a_plain_state_dict_is_read_too(tmp_path: Path) -> None:
    state = trained().state_dict()
    assert same(load_published_checkpoint(str(written(tmp_path, state)), Small()), state)


@pytest.mark.parametrize("wrapped", ["maxpool", "layer1", "conv1"])
def test_a_module_wrapped_under_its_own_name_is_unwrapped(tmp_path: Path, wrapped: str) -> None:
    state = trained().state_dict()
    renamed = {
        key.replace(f"{wrapped}.", f"{wrapped}.{wrapped}.", 1): value
        for key, value in state.items()
    }
    path = written(tmp_path, {"state_dict": prefixed(renamed, "classifierDNN.")})
    assert same(load_published_checkpoint(path, Small()), state)


def test_a_key_that_fits_as_it_is_is_not_unwrapped(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    fresh = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    path = written(tmp_path, prefixed(model.state_dict(), "model.model."))
    assert same(load_published_checkpoint(path, fresh), model.state_dict())


def test_dropout_before_the_head_has_the_published_keys(tmp_path: Path) -> None:
    state = build_backbone("convnet", 3).state_dict()
    published = {key.replace("classifier.", "classifier.1."): v for key, v in state.items()}
    path = written(tmp_path, {"state_dict": prefixed(published, "model.model.")})
    model = load_published_checkpoint(path, build_backbone("convnet", 3, dropout=0.5))
    assert same(model, published)
    with pytest.raises(ValueError, match=r"missing: classifier.weight \[3, 64\].*and dropout of"):
        load_published_checkpoint(path, build_backbone("convnet", 3))


def test_types_and_counters(tmp_path: Path) -> None:
    state = {
        key: value.double() for key, value in trained().state_dict().items() if "num" not in key
    }
    backbone = Small()
    backbone.bn1.num_batches_tracked.fill_(5)
    load_published_checkpoint(written(tmp_path, state), backbone)
    assert backbone.bn1.num_batches_tracked == 5
    assert {value.dtype for value in backbone.parameters()} == {torch.float32}
    torch.testing.assert_close(backbone.conv1.weight, state["conv1.weight"].float())
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_what_is_ignored_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = trained().state_dict()
    path = written(
        tmp_path,
        prefixed(state, "model.model.")
        | {"model.ZbModule.layer.weight": torch.rand(3), "model.model.extra.bias": torch.rand(2)},
    )
    with caplog.at_level(logging.WARNING, logger="faster_isnet"):
        load_published_checkpoint(path, Small())
    (record,) = caplog.records
    assert "model.ZbModule.layer.weight, model.model.extra.bias" in record.getMessage()
    caplog.clear()
    load_published_checkpoint(written(tmp_path, state), Small())
    assert not caplog.records


def test_two_copies_of_one_network_are_one(tmp_path: Path) -> None:
    state = trained().state_dict()
    both = prefixed(state, "classifierDNN.") | prefixed(state, "LRPBlock.model.")
    assert same(load_published_checkpoint(written(tmp_path, both), Small()), state)


def test_two_networks_are_ambiguous(tmp_path: Path) -> None:
    both = prefixed(trained().state_dict(), "a.") | prefixed(trained().state_dict(), "bc.")
    with pytest.raises(ValueError, match=r"different networks .* under 'a' and 'bc'; save"):
        load_published_checkpoint(written(tmp_path, both), Small())


def test_of_two_networks_the_one_whose_shapes_fit(tmp_path: Path) -> None:
    state = trained().state_dict()
    both = prefixed(Small(7).state_dict(), "a.") | prefixed(state, "model.")
    assert same(load_published_checkpoint(written(tmp_path, both), Small()), state)


def without(key: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name != key}


def with_value(key: str, value: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, key: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("fc.bias"), r"missing: fc.bias \[3\]"),
        (without("bn1.running_var"), r"missing: bn1.running_var \[4\]"),
        (with_value("fc.bias", torch.rand(5)), r"shape: fc.bias \[3\], in the file \[5\]. Build"),
        (lambda state: prefixed(state, "m.") | {"m.x": state["fc.bias"]}, None),
        (lambda state: {"weights": state["fc.bias"]}, "no key in .* it has weights; the backbone"),
        (with_value("fc.bias", torch.rand(3).to_sparse()), "fc.bias is not a dense tensor"),
        (with_value("fc.bias", torch.rand(3, device="meta")), "fc.bias is not a dense tensor"),
        (with_value("fc.bias", torch.rand(3) * 1j), "fc.bias is torch.complex64, .*float32"),
        (lambda _: {"state_dict": {"a": 1}, "epoch": 2}, "no state dict .*: 'state_dict', 'epoch'"),
        (lambda state: [*state.values()], "holds no state dict of tensors, .* it holds: list"),
        (lambda _: {}, "holds no state dict of tensors"),
    ],
)
def test_mismatches_are_reported_and_change_nothing(
    tmp_path: Path, change: Callable[[State], object], message: str | None
) -> None:
    path, backbone = written(tmp_path, change(trained().state_dict())), Small()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    if message is None:  # the control: this one fits
        load_published_checkpoint(path, backbone)
        assert not same(backbone, before)
        return
    with pytest.raises(ValueError, match=message) as caught:
        load_published_checkpoint(path, backbone)
    assert str(path) in str(caught.value)
    assert same(backbone, before)


def test_another_number_of_classes_names_both(tmp_path: Path) -> None:
    path = written(tmp_path, prefixed(Small(5).state_dict(), "model.model."))
    expected = r"prefix 'model.model.' there: of another shape: fc.weight \[3, 5\], in the file \[5"
    with pytest.raises(ValueError, match=expected):
        load_published_checkpoint(path, Small(3))


def test_long_lists_are_cut(tmp_path: Path) -> None:
    path = written(tmp_path, {"conv1.weight": torch.rand(64, 3, 7, 7)})
    with pytest.raises(ValueError, match=r"layer1.0.bn1.weight \[64\].*, … \(\d+ more\)") as caught:
        load_published_checkpoint(path, build_backbone("resnet18", 3))
    assert len(str(caught.value)) < 1500


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def _zip(path: Path, content: object) -> None:
    torch.save(content, path)


def _before_zip(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _bare_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


def _tar(path: Path, content: object) -> None:
    """Write the oldest format, whose parts PyTorch before 2.6 unpickled without restrictions."""
    folder = path.parent / "tar"
    folder.mkdir()
    with tarfile.open(path, "w") as tar:
        for name in ("storages", "tensors", "pickle", "sys_info"):
            (folder / name).write_bytes(pickle.dumps(content))
            tar.add(folder / name, name)


@pytest.mark.parametrize("write", [_zip, _before_zip, _bare_pickle, _tar])
@pytest.mark.parametrize("where", ["state_dict", "callbacks", None])
def test_code_in_a_file_is_never_run(
    tmp_path: Path, write: Callable[[Path, object], None], where: str | None
) -> None:
    trace, path, backbone = tmp_path / "trace", tmp_path / "isnet.ckpt", Small()
    attack = Malicious(trace)
    write(path, attack if where is None else {"state_dict": trained().state_dict(), where: attack})
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=r"without running code from it.*save its state dict alo"):
        load_published_checkpoint(path, backbone)
    assert not trace.exists()
    assert same(backbone, before)
    if write is not _tar:  # the attack is real
        torch.load(path, weights_only=False) if write is not _bare_pickle else pickle.loads(
            path.read_bytes()
        )
        assert trace.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x03\x04" + b"x" * 1000, b"hello"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "isnet.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"isnet\.ckpt is no file of tensors .*or it is damaged"):
        load_published_checkpoint(path, Small())


def test_torchscript_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "isnet.pt"
    torch.jit.trace(nn.Linear(2, 2), torch.rand(1, 2)).save(str(path))
    with pytest.raises(ValueError, match=r"isnet\.pt "):
        load_published_checkpoint(path, nn.Linear(2, 2))


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt"):
        load_published_checkpoint(tmp_path / "nothing.ckpt", Small())
    with pytest.raises(TypeError, match=r"backbone must be a torch\.nn.Module, got dict"):
        load_published_checkpoint(written(tmp_path, {}), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "prefix"), [("resnet18", "classifierDNN."), ("densenet121", "model.model.")]
)
def test_the_papers_backbones(tmp_path: Path, name: str, prefix: str) -> None:
    state = build_backbone(name, 3).state_dict()
    path = written(tmp_path, lightning_content(prefixed(state, prefix)))
    assert same(load_published_checkpoint(path, build_backbone(name, 3)), state)


def as_torch(folder: Path, model: nn.Module) -> Path:
    return written(folder, model.state_dict())


def as_safetensors(folder: Path, model: nn.Module) -> Path:
    save_model(model, str(folder / "weights"))  # known by its content, not by its name
    return folder / "weights"


def as_lightning(folder: Path, model: nn.Module) -> Path:
    state = prefixed(model.state_dict(), "net.backbone.")
    return written(folder, lightning_content({**state, "criterion.weights": torch.rand(3)}))


Save = Callable[[Path, nn.Module], Path]
WRITERS = [as_torch, as_safetensors, as_lightning]


@pytest.mark.parametrize("save", WRITERS)
def test_own_weights_round_trip(tmp_path: Path, save: Save) -> None:
    model, backbone = trained(), Small().eval()
    assert load_backbone_weights(save(tmp_path, model), backbone) is backbone
    assert same(backbone, model.state_dict())
    assert not backbone.training


def test_a_checkpoint_of_litisnet(tmp_path: Path) -> None:
    loss = ISNetLoss(0.0, class_weights=[1.0, 2.0, 3.0])
    lit = LitISNet(ISNet(Small()), loss, swapped_backgrounds=0)
    data = torch.utils.data.TensorDataset(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
    trainer = lightning.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path, "logger": False},
        **{"enable_progress_bar": False, "enable_model_summary": False},
    )
    trainer.fit(lit, torch.utils.data.DataLoader(data, batch_size=2))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    backbone = load_backbone_weights(tmp_path / "last.ckpt", Small())
    assert same(backbone, lit.net.backbone.state_dict())


@pytest.mark.parametrize("save", WRITERS)
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Small(5), r"of another shape: fc.weight \[3, 5\], in the file \[5, 5\].*Build the backb"),
        (Small(dropout=0.5), r"missing: fc.weight \[3, 5\].* left over in the file: .*fc.1.weight"),
        (nn.Sequential(Small()), r"missing: conv1.weight.* left over in the file: .*0.conv1.weig"),
        (nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3))), r"left over in the file: .*conv1.b"),
    ],
)
def test_own_weights_have_to_fit(
    tmp_path: Path, save: Save, other: nn.Module, message: str
) -> None:
    path, backbone = save(tmp_path, other), Small()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load_backbone_weights(path, backbone)
    assert str(path) in str(caught.value)
    assert same(backbone, before)


def test_what_alone_is_left_over_is_an_error(tmp_path: Path) -> None:
    state = trained().state_dict()
    path = written(tmp_path, {**state, "extra.weight": torch.rand(2)})
    with pytest.raises(ValueError, match=r"isnet\.ckpt does not .*: left over in the file: extra"):
        load_backbone_weights(path, Small())


def test_other_wrappers_need_the_other_function(tmp_path: Path) -> None:
    path = written(tmp_path, prefixed(trained().state_dict(), "model.model."))
    with pytest.raises(ValueError, match="other wrappers, load_published_checkpoint finds them"):
        load_backbone_weights(path, Small())


def test_published_weights_may_be_safetensors(tmp_path: Path) -> None:
    model = nn.ModuleDict({"model": trained()})
    backbone = load_published_checkpoint(as_safetensors(tmp_path, model), Small())
    assert same(backbone, model["model"].state_dict())


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = as_safetensors(tmp_path, trained())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"weights is no file of tensors .*or it is damaged"):
        load_backbone_weights(path, Small())
