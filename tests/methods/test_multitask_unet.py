"""One encoder learns classes and masks, and is deployed as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK
from faster_isnet.methods import Batch, method_names
from faster_isnet.methods.multitask_unet import MultiTaskNetwork, MultiTaskUNet
from faster_isnet.models import build_backbone
from faster_isnet.training.lit_classifier import LitClassifier
from marked_shapes import accuracy, dice, marked_shapes, quiet_trainer, small_network, train

SHAPE = (3, 32, 32)


def batch(count: int = 6) -> Batch:
    images, labels, masks = marked_shapes(count)
    return Batch(images, labels, masks)


def made(**options: Any) -> tuple[MultiTaskUNet, MultiTaskNetwork]:
    method = MultiTaskUNet(image_shape=SHAPE, **options)
    return method, method.build(small_network())


@pytest.mark.slow
def test_masks_and_classes_are_learnt() -> None:
    lit = train(MultiTaskUNet(image_shape=SHAPE), marked_shapes(192), 6)
    images, labels, masks = marked_shapes(100, 1)
    assert isinstance(lit.net, MultiTaskNetwork)
    with torch.no_grad():
        _, logits = lit.net.with_masks(images)
    assert dice((logits > 0).float(), masks) > 0.9
    assert accuracy(lit.deployed, images, labels) > 0.95


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    for weight in (0.2, 1.0):
        method, network = made(segmentation_weight=weight)
        losses = method.losses(network.eval(), batch())
        expected = (1 - weight) * losses.classification + weight * losses.parts["segmentation"]
        torch.testing.assert_close(losses.total, expected)


def test_both_losses_train_the_encoder_and_the_masks_alone_the_decoder() -> None:
    method, network = made()
    losses = method.losses(network, batch())
    first = network.classifier[0].weight  # type: ignore[index]
    for loss in (losses.classification, losses.parts["segmentation"]):
        (gradient,) = torch.autograd.grad(loss, first, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert network.decoder is not None
    decoder = list(network.decoder.parameters())
    of_classes = torch.autograd.grad(
        losses.classification, decoder, retain_graph=True, allow_unused=True
    )
    assert all(gradient is None for gradient in of_classes)
    of_masks = torch.autograd.grad(losses.parts["segmentation"], decoder)
    assert all(gradient.abs().sum() > 0 for gradient in of_masks)


@pytest.mark.parametrize("masks", [None, torch.full((6, 1, 32, 32), NO_MASK)])
def test_without_a_mask_the_classification_alone_is_trained(masks: Tensor | None) -> None:
    method, network = made()
    losses = method.losses(network, batch()._replace(masks=masks))
    assert losses.parts["segmentation"] == 0
    losses.total.backward()
    ours = [p.grad for p in network.classifier.parameters()]
    network.zero_grad()
    again = 0.5 * method.classification(network(batch().images), batch().labels)
    for gradient, expected in zip(
        ours, torch.autograd.grad(again, network.classifier.parameters()), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


def test_the_deployed_network_is_the_classifier_without_hooks() -> None:
    classifier = small_network()
    method = MultiTaskUNet(image_shape=SHAPE)
    network = method.build(classifier)
    method.losses(network, batch())
    assert method.deployed(network) is classifier
    assert not any(module._forward_hooks for module in classifier.modules())
    images = batch().images
    assert torch.equal(network.eval()(images), classifier(images))


NETWORKS = {
    "resnet": (lambda: torchvision.models.resnet18(num_classes=2), (3, 48, 64)),
    "densenet": (lambda: build_backbone("densenet121", 2), (3, 40, 48)),
    "vgg": (lambda: torchvision.models.vgg11_bn(num_classes=2), (3, 64, 64)),
    "vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), num_classes=2),
        (3, 32, 64),
    ),
    "swin": (lambda: torchvision.models.swin_t(num_classes=2), (3, 64, 96)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_any_kind_are_encoders(name: str) -> None:
    build, shape = NETWORKS[name]
    method = MultiTaskUNet(image_shape=shape)
    network = method.build(build())
    masks = (torch.rand(2, 1, *shape[1:]) < 0.5).float()
    losses = method.losses(network, Batch(torch.rand(2, *shape), torch.tensor([0, 1]), masks))
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_tokens_are_put_where_they_lie_in_the_image() -> None:
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=2).eval()
    layer = MultiTaskNetwork(network, ["blocks.1"])
    images = torch.rand(1, 3, 64, 64)
    _, (features,) = layer._features(images)
    kept = {}
    hook = network.blocks[1].register_forward_hook(lambda *a: kept.update(tokens=a[2]))
    network(images)
    hook.remove()
    assert features.shape == (1, 192, 4, 4)
    torch.testing.assert_close(features[0, :, 2, 1], kept["tokens"][0, 1 + 2 * 4 + 1])


def test_what_writes_over_a_layer_changes_nothing() -> None:
    """A ReLU in place writes over what a hook has kept; its gradient is right all the same."""

    def network(inplace: bool) -> MultiTaskNetwork:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace), nn.Conv2d(4, 4, 3, 2, 1)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
        whole = MultiTaskNetwork(nn.Sequential(*layers, *head), ["1", "2"])
        whole.add_decoder(SHAPE)
        return whole

    method, gradients = MultiTaskUNet(), []
    for each in (network(True), network(False)):
        method.losses(each, batch()).total.backward()
        gradients.append([p.grad for p in each.parameters()])
    torch.testing.assert_close(*gradients)


def test_the_layers_may_be_chosen() -> None:
    method = MultiTaskUNet(layers=["layer2", "layer3"], image_shape=SHAPE)
    network = method.build(torchvision.models.resnet18(num_classes=2))
    assert network.layers == ("layer2", "layer3")
    with pytest.raises(ValueError, match="unknown layer 'layer9'; did you mean"):
        MultiTaskUNet(layers=["layer9"]).build(torchvision.models.resnet18())


def test_a_training_goes_on_and_its_networks_are_read_again(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(*marked_shapes(32)), 8, shuffle=True)

    def lit() -> LitClassifier:
        torch.manual_seed(0)
        method = MultiTaskUNet(0.3, image_shape=SHAPE)
        return LitClassifier(build_backbone("convnet", 2), method, schedule="constant")

    def fit(model: LitClassifier, epochs: int, **options: Any) -> None:
        keep = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
        trainer = quiet_trainer(epochs, enable_checkpointing=True, callbacks=[keep])
        torch.manual_seed(2)
        trainer.fit(model, loader, **options)

    whole, parts, resumed = lit(), lit(), lit()
    fit(whole, 2)
    fit(parts, 1)
    fit(resumed, 2, ckpt_path=tmp_path / "last.ckpt")
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    read = LitClassifier.load_from_checkpoint(tmp_path / "last.ckpt").eval()
    assert isinstance(read.net, MultiTaskNetwork)
    assert read.net.layers == ("block1", "block2", "block5")
    images = batch().images
    for ours, theirs in zip(
        read.net.with_masks(images), resumed.eval().net.with_masks(images), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_size_of_the_images_must_be_known() -> None:
    method = MultiTaskUNet()
    network = method.build(small_network())
    with pytest.raises(ValueError, match=r"give MultiTaskUNet\(image_shape=\(C, H, W\)\)"):
        method.losses(network, batch())
    method.see_image_shape(network, SHAPE)
    assert method.losses(network, batch()).total.isfinite()
    with pytest.raises(ValueError, match=r"image_shape \(3, 32, 32\), the images have \(3, 64"):
        method.see_image_shape(network, (3, 64, 64))


def test_bfloat16() -> None:
    method, network = made()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(network, batch())
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_several_labels_of_an_image() -> None:
    method, network = made()
    method.task = "multilabel"
    labels = torch.tensor([[0.0, 1.0], [1.0, 1.0]]).repeat(3, 1)
    assert method.losses(network, batch()._replace(labels=labels)).total.isfinite()


def test_it_is_found_by_its_name() -> None:
    assert method_names()["multitask-unet"] is MultiTaskUNet
    assert MultiTaskUNet().needs_masks()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segmentation_weight": 0}, r"segmentation_weight must be a number in \(0, 1\]"),
        ({"image_shape": (32, 32)}, r"image_shape must be \(C, H, W\)"),
        ({"image_shape": (3, 0, 32)}, r"image_shape must be \(C, H, W\)"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiTaskUNet(**options)


def test_the_package_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'faster-isnet\[segment\]'"):
        MultiTaskUNet()
