"""The ISNet: variants, supervised layers, gradients, and that training lowers the loss."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from faster_isnet import NO_MASK, Explainer, ISNet, ISNetLoss
from faster_isnet.methods.isnet.network import VARIANTS, published_layers
from golden_networks import Golden


def network(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32, classes)),
    )


def batch(size: int = 8, classes: int = 4, n: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(n, 1, size, size)
    masks[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return torch.rand(n, 3, size, size), torch.randint(classes, (n,)), masks


@pytest.mark.parametrize("input_rule", ["zb", None])
def test_published_losses_and_gradients(golden: Golden, input_rule: str | None) -> None:
    net = ISNet(golden.model, deep_supervision=False, input_rule=input_rule)
    criterion = ISNetLoss(cut_low=0.1, cut_high=2.5, foreground="l2")
    parts = criterion(net.explain(golden["input"]), golden["labels"], golden["mask"])
    parts.total.backward()
    key = f"loss_selective_{input_rule or 'nozb'}"
    for name in ("classification", "heatmap", "total"):
        torch.testing.assert_close(getattr(parts, name), golden[f"{key}/{name}"].reshape(()))
    differences, sizes = [], []
    for name, parameter in golden.model.named_parameters():
        expected = golden[f"{key}/grad/{name}"]
        difference = (parameter.grad - expected).norm()
        # The published numbers are float32: some are 2e-5 from what float64 gives.
        assert difference < 2e-5 * expected.norm(), name
        differences.append(difference)
        sizes.append(expected.norm())
    assert torch.stack(differences).norm() < 1e-5 * torch.stack(sizes).norm()


HEATMAPS = {"original": 4, "dual": 2}


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_does_not_synchronise_with_the_device(variant: str, deep_supervision: bool) -> None:
    # A tensor on the device "meta" has no values: asking for one is an error.
    model = torchvision.models.resnet18(num_classes=3).to("meta")
    images, masks = torch.rand(4, 3, 64, 64, device="meta"), torch.ones(4, 1, 64, 64, device="meta")
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    explanation = ISNet(model, variant, deep_supervision).explain(images)
    ISNetLoss(0.7)(explanation, labels, masks).total.backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_explains_its_quantity(variant: str) -> None:
    net, (x, _, _) = ISNet(network(), variant).eval(), batch()
    chosen = VARIANTS[variant]
    torch.manual_seed(1)
    explanation = net.explain(x)
    torch.manual_seed(1)
    explainer = Explainer(net.backbone, chosen.composite, input_rule=chosen.input_rule)
    torch.testing.assert_close(explanation.heatmap, explainer(x, chosen.target).heatmap)
    assert explanation.heatmap.shape == (4, HEATMAPS.get(variant, 1), 3, 8, 8)
    assert explanation.heatmap.requires_grad


@pytest.mark.parametrize("variant", ["selective", "stochastic", "original"])
def test_variants_run_on_the_block_form_too(variant: str) -> None:
    x, _, _ = batch()
    heatmaps = []
    for composite in ("flex", "epsilon"):
        net = ISNet(network(), variant, composite=composite).eval()
        torch.manual_seed(0)
        for parameter in net.parameters():
            parameter.data.normal_(std=0.3)
        heatmaps.append(net.explain(x).heatmap)
    assert heatmaps[0].shape == heatmaps[1].shape
    assert not torch.equal(*heatmaps)


def test_the_ablations_are_gradient_times_input() -> None:
    x, _, _ = batch()
    for variant, quantity in [
        ("softmax-gradient-x-input", lambda y: y.log_softmax(1).sum()),
        ("logit-gradient-x-input", lambda y: y.sum()),
    ]:
        net, pixels = ISNet(network(), variant).eval(), x.clone().requires_grad_()
        (g,) = torch.autograd.grad(quantity(net(pixels)), pixels)
        torch.testing.assert_close(net.explain(x).heatmap[:, 0], x * g)


def test_ignored_classes_take_no_part() -> None:
    model, (x, _, _) = network().eval(), batch()
    for variant, kept in [("original", [0, 2, 3]), ("logit-gradient-x-input", None)]:
        net = ISNet(model, variant, ignore_classes=[1])
        everything = ISNet(model, "original", composite="flex").explain(x).heatmap
        if kept is not None:
            torch.testing.assert_close(net.explain(x).heatmap, everything[:, kept])
    last = model[-1]
    last.bias.data[1] = -100.0  # class 1 would be the lowest
    net = ISNet(model, ignore_classes=[1])
    before = net.explain(x).heatmap
    last.weight.data[1].normal_()
    assert torch.equal(net.explain(x).heatmap, before)
    assert not torch.equal(ISNet(model).explain(x).heatmap, before)


@pytest.mark.parametrize(
    ("ignored", "message"),
    [([4], r"must be in 0..3, got \[4\]"), ([0, 1, 2], "at least two of the 4 classes")],
)
def test_classes_that_cannot_be_ignored(ignored: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ISNet(network(), ignore_classes=ignored).explain(batch()[0])


def test_a_call_runs_the_unmodified_model() -> None:
    model, (x, _, _) = network().eval(), batch()
    keys, logits = list(model.state_dict()), model(x)
    net = ISNet(model)
    assert net.backbone is model
    assert list(net.state_dict()) == [f"backbone.{key}" for key in keys]
    assert torch.equal(net(x), logits)
    assert len(list(net.parameters())) == len(list(model.parameters()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_detached_where_gradients_are_off(mode: type) -> None:
    net, (x, y, masks) = ISNet(network(), deep_supervision=["4"]).eval(), batch()
    expected = ISNetLoss()(net.explain(x), y, masks).total
    with mode():
        explanation = net.explain(x)
        parts = ISNetLoss()(explanation, y, masks)
    assert not explanation.heatmap.requires_grad
    torch.testing.assert_close(parts.total, expected.detach())


PUBLISHED = {
    "resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "densenet121": [
        *(f"features.transition{i}.relu" for i in (1, 2, 3)),
        "features.norm5",
    ],
    "vgg11": ["features.2", "features.5", "features.10", "features.15", "features.20"],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layers(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None, num_classes=3)
    assert published_layers(model) == PUBLISHED[name]
    net, (x, y, masks) = ISNet(model, deep_supervision=True), batch(64, 3, 2)
    explanation = net.explain(x)
    assert list(explanation.layers) == PUBLISHED[name]
    plain, deep = ISNetLoss(1.0), ISNetLoss(1.0, layer_decay=0.5)
    losses = [plain.heatmap_losses(explanation.heatmap, masks)]
    assert deep(explanation, y, masks).heatmap >= plain(explanation, y, masks).heatmap - 1e-5
    assert losses[0].isfinite().all()
    deep(explanation, y, masks).total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


FULL = {"resnet18": 8, "resnet50": 16, "densenet121": 1 + 2 * 58 + 3 + 1, "vgg11_bn": 8}


@pytest.mark.parametrize("name", FULL)
def test_full_signal_penalisation_supervises_every_block(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None, num_classes=3).eval()
    net = ISNet(model, deep_supervision="full")
    assert len(net.layers) == FULL[name]
    if name == "resnet18":
        x, y, masks = batch(64, 3, 2)
        ISNetLoss(1.0)(net.explain(x), y, masks).total.backward()


@pytest.mark.parametrize("composite", ["epsilon", "dual"])
def test_layers_are_supervised_under_the_rules_too(composite: str) -> None:
    model = torchvision.models.get_model("resnet18", weights=None, num_classes=3).eval()
    x, y, masks = batch(64, 3, 2)
    explanation = ISNet(model, deep_supervision=True, composite=composite).explain(x)
    k = 2 if composite == "dual" else 1
    assert [r.shape[1] for r in explanation.layers.values()] == [k] * 4
    ISNetLoss(1.0)(explanation, y, masks).total.backward()


def test_an_unknown_choice_of_layers() -> None:
    with pytest.raises(
        ValueError, match=r"must be 'auto', False, True, 'full' or a list .* got 'ful'"
    ):
        ISNet(network(), deep_supervision="ful")
    with pytest.raises(ValueError, match="no block of several branches of Sequential"):
        ISNet(network(), deep_supervision="full").explain(batch()[0])


def test_by_default_stages_are_supervised_where_there_are_some(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resnet = torchvision.models.resnet18(num_classes=3)
    assert ISNet(resnet).layers == ("layer1", "layer2", "layer3", "layer4")
    assert ISNet(network()).find_layers((3, 8, 8)) == ("3", "6")
    assert "Only" not in caplog.text
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    net = ISNet(linear)
    explanation = net.explain(torch.rand(2, 3, 8, 8))
    assert not explanation.layers
    assert net.layers == ()
    assert "Only the heatmap of the image is supervised: no hidden layer" in caplog.text
    with pytest.raises(ValueError, match="no hidden layer"):  # asked for
        ISNet(linear, deep_supervision=True).find_layers((3, 8, 8))


@pytest.mark.parametrize("by", ["find_layers", "explain"])
def test_layers_of_another_network_are_found_when_it_runs(
    by: str, caplog: pytest.LogCaptureFixture
) -> None:
    net, (x, y, masks) = ISNet(network(), deep_supervision=True), batch()
    with pytest.raises(RuntimeError, match=r"find_layers\(\(C, H, W\)\)"):
        net.layers  # noqa: B018
    with caplog.at_level("INFO"):
        net.explain(x) if by == "explain" else net.find_layers((3, 8, 8))
    assert net.layers == ("3", "6")
    assert "Supervised hidden layers: 3, 6" in caplog.text
    same = ISNet(net.backbone, deep_supervision=["3", "6"])
    net.eval(), same.eval()
    losses = [ISNetLoss()(each.explain(x), y, masks).total for each in (net, same)]
    assert torch.equal(*losses)


def test_layers_that_were_found_stay_for_images_of_another_size() -> None:
    model = nn.Sequential(*list(network())[:7], nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1))
    net = ISNet(nn.Sequential(*model, nn.Flatten()), deep_supervision=True)
    net.find_layers((3, 8, 8))
    explanation = net.explain(torch.rand(2, 3, 8, 16))
    assert {name: tuple(r.shape[3:]) for name, r in explanation.layers.items()} == {
        "3": (4, 8),
        "6": (2, 6),
    }


def test_a_recipe_has_the_layers_that_were_found() -> None:
    net = ISNet(network(), deep_supervision=True)
    assert net.recipe_arguments()["deep_supervision"] is True
    net.find_layers((3, 8, 8))
    assert net.recipe_arguments()["deep_supervision"] == ["3", "6"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_finds_its_layers(duplicate: Callable[[ISNet], ISNet]) -> None:
    net = ISNet(network(), deep_supervision=True)
    assert duplicate(net).find_layers((3, 8, 8)) == net.find_layers((3, 8, 8)) == ("3", "6")
    assert duplicate(net).layers == ("3", "6")


def test_a_network_with_published_layers_need_not_run() -> None:
    wrapped = nn.Sequential(nn.Identity(), torchvision.models.resnet18())
    net = ISNet(wrapped, deep_supervision=True)
    expected = tuple(f"1.{name}" for name in PUBLISHED["resnet18"])
    assert net.layers == net.find_layers((1, 1, 1)) == expected


def test_supervising_a_layer_is_supervising_its_relevance() -> None:
    x, y, masks = batch()
    net = ISNet(network(), deep_supervision=["3"]).eval()
    explanation = net.explain(x)
    criterion = ISNetLoss(1.0)
    halves = torch.nn.functional.adaptive_avg_pool2d(masks, 4).gt(0).float()
    image = criterion.heatmap_losses(explanation.heatmap, masks).mean()
    layer = criterion.heatmap_losses(explanation.layers["3"], halves).mean()
    torch.testing.assert_close(criterion(explanation, y, masks).heatmap, (image + layer) / 2)


def test_samples_without_a_mask_may_be_mixed_in() -> None:
    x, y, masks = batch()
    masks[1] = NO_MASK
    net = ISNet(network()).eval()
    mixed = ISNetLoss()(net.explain(x), y, masks)
    rest = [0, 2, 3]
    masked = ISNetLoss()(net.explain(x[rest]), y[rest], masks[rest])
    torch.testing.assert_close(mixed.heatmap, masked.heatmap * 3 / 4)


TRAINABLE = [
    *(("resnet18", variant) for variant in VARIANTS),
    *((name, "selective") for name in ("densenet121", "vgg11_bn", "mobilenet_v3_small")),
    *((name, "selective") for name in ("efficientnet_b0", "convnext_tiny")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), TRAINABLE)
def test_one_step_lowers_the_heatmap_loss(name: str, variant: str) -> None:
    """In training mode, with batch norm, dropout and stochastic depth as they are."""
    model = torchvision.models.get_model(name, weights=None, num_classes=3)
    net, (x, y, masks) = ISNet(model, variant).train(), batch(64, 3)
    criterion = ISNetLoss(1.0, cut_low=0.1, cut_high=2.5)

    def heatmap_loss(net: ISNet) -> Tensor:
        torch.manual_seed(3)  # the same dropout, paths and drawn logits
        return criterion(net.explain(x), y, masks).heatmap

    before = heatmap_loss(net)
    before.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.norm() for g in gradients]).norm()
    assert norm.isfinite()
    assert norm > 0
    torch.optim.SGD(model.parameters(), lr=0.01 * before.item() / norm.item() ** 2).step()
    assert heatmap_loss(net) < before


def test_frozen_layers_stay_and_the_rest_learns() -> None:
    net, (x, y, masks) = ISNet(network()), batch()
    net.backbone[0].requires_grad_(False)
    ISNetLoss()(net.explain(x), y, masks).total.backward()
    assert net.backbone[0].weight.grad is None
    assert net.backbone[4].weight.grad.abs().sum() > 0


def test_gradients_of_the_classification_are_those_of_the_model() -> None:
    model, (x, y, masks) = network(), batch()
    plain = copy.deepcopy(model)
    ISNetLoss(0.0)(ISNet(model).explain(x), y, masks).total.backward()
    nn.functional.cross_entropy(plain(x), y).backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_explains_itself(duplicate: object) -> None:
    net, (x, _, _) = ISNet(network()).eval(), batch()
    other = duplicate(net)
    torch.testing.assert_close(other.explain(x).heatmap, net.explain(x).heatmap)
    nn.init.zeros_(other.backbone[-1].weight)
    assert other.explain(x).heatmap.abs().sum() == 0
    assert net.explain(x).heatmap.abs().sum() > 0


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown variant 'selectiv'; did you mean 'selective'"):
        ISNet(network(), "selectiv")
    with pytest.raises(ValueError, match="unknown layer 'layer5'"):
        ISNet(torchvision.models.resnet18(), deep_supervision=["layer5"])


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_channels_last_is_the_same_to_the_method(variant: str) -> None:
    model = torchvision.models.resnet18(num_classes=3).double()
    x, masks = torch.rand(2, 3, 48, 48, dtype=torch.float64), torch.ones(2, 1, 48, 48)
    masks[..., :16] = 0
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        net = ISNet(copy.deepcopy(model).to(memory_format=memory_format), variant, True)
        explanation = net.explain(x.contiguous(memory_format=memory_format))
        total = ISNetLoss(0.7)(explanation, torch.tensor([0, 1]), masks).total
        gradients = torch.autograd.grad(total, list(net.parameters()))
        found.append((explanation.heatmap, *explanation.layers.values(), *gradients))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
