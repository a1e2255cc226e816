"""timm's networks by name, where timm is installed, and where it is not."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from faster_isnet.models import build_backbone, check_backbone, replace_classifier

NETWORKS = {
    "test_vit": "head",
    "test_resnet": "fc",
    "test_efficientnet": "classifier",
    "test_convnext": "head.fc",
    "test_byobnet": "head.fc",
    "test_nfnet": "head.fc",
    "test_mambaout": "head.fc",
    "resnet10t": "fc",
}


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_timms_with_a_new_head_and_dropout(timm: Any, name: str) -> None:
    model, head = build_backbone(f"timm:{name}", 5), NETWORKS[name]
    x, keys = torch.rand(2, *model.pretrained_cfg["input_size"]), list(model.state_dict())
    assert model.get_submodule(head).weight.shape[0] == 5
    assert replace_classifier(model, 7) is model
    assert list(model.state_dict()) == keys
    assert model.num_classes == 7

    replace_classifier(model, 4, dropout=0.25)
    drops = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p == 0.25]
    assert len(drops) == 1
    linear = model.get_submodule(f"{head}.1" if drops == [f"{head}.0"] else head)
    inputs: list[torch.Tensor] = []
    linear.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    assert model.eval()(x).shape == (2, 4)
    model.get_submodule(drops[0]).train()
    model(x)
    plain, dropped = (features[inputs[0] != 0] for features in inputs)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    assert 0.6 < kept.float().mean() < 0.9


def test_both_heads_of_a_distilled_network_get_dropout(timm: Any) -> None:
    model = timm.create_model("deit_tiny_distilled_patch16_224", depth=1)
    replace_classifier(model, 3, dropout=0.5)
    for head in model.get_classifier():
        assert [type(module) for module in head] == [nn.Dropout, nn.Linear]
        assert head[1].out_features == 3


def test_pretrained_weights_are_loaded_by_timm_before_the_head_is_replaced(
    timm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    create, trained = timm.create_model, timm.create_model("test_resnet")

    def pretend(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        asked.append({"name": name, "pretrained": pretrained, **options})
        model: nn.Module = create(name, **options)
        model.load_state_dict(trained.state_dict())
        return model

    monkeypatch.setattr(timm, "create_model", pretend)
    model = build_backbone("timm:test_resnet.r160_in1k", 3, pretrained=True)
    assert asked == [{"name": "test_resnet.r160_in1k", "pretrained": True}]
    state = model.state_dict()
    assert state["fc.weight"].shape[0] == 3
    kept = {key: value for key, value in state.items() if not key.startswith("fc.")}
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in kept.items())


def test_names(timm: Any) -> None:
    assert check_backbone("timm:test_resnet.r160_in1k") == "timm:test_resnet.r160_in1k"
    for name, message in {
        "timm:resnet10tt": "unknown timm backbone 'resnet10tt'; did you mean 'resnet10t'",
        "timm:test_resnet.r161_in1k": "did you mean 'test_resnet.r160_in1k'",
        "timm:hf-hub:someone/some": "unknown timm backbone 'hf-hub:someone/some'",
        "timm:": "unknown timm backbone ''",
    }.items():
        with pytest.raises(ValueError, match=message):
            build_backbone(name, 3)
    with pytest.raises(ValueError, match="last_pool=False is for torchvision's VGG"):
        build_backbone("timm:vgg11", 3, last_pool=False)
    bare = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(ValueError, match=f"timm has no pretrained weights for {bare!r}"):
        build_backbone(f"timm:{bare}", 3, pretrained=True)


def test_without_timm_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"'timm:resnet18' needs timm: pip install 'faster-isne"):
        build_backbone("timm:resnet18", 3)
    assert build_backbone("convnet", 3, dropout=0.5).classifier[0].p == 0.5


def test_a_name_without_the_prefix_is_recognised(timm: Any, monkeypatch: Any) -> None:
    for name in ("test_vit", "resnet18.a1_in1k", "tf_efficientnet_lite0"):
        with pytest.raises(ValueError, match=f"it is a network of timm: timm:{name}"):
            check_backbone(name)
    with pytest.raises(ValueError, match="unknown backbone 'test_vitt'"):
        check_backbone("test_vitt")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="unknown backbone 'test_vit'"):
        check_backbone("test_vit")
