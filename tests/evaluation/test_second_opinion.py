"""Other methods than LRP: their heatmaps are captum's, and whether they agree is said plainly."""

from __future__ import annotations

import sys

import pytest
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

from faster_isnet.evaluation.opinions import (
    GRAD_CAM,
    INTEGRATED_GRADIENTS,
    LRP,
    OTHER_METHODS,
    Opinion,
    PicturedImage,
    agreement,
)
from faster_isnet.evaluation.second_opinion import _explain, second_opinion
from faster_isnet.methods.gain import grad_cam
from faster_isnet.methods.layer_grids import Places
from faster_isnet.methods.stages import find_stages
from faster_isnet.relevance import hidden_outputs


def small_network(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(6, outputs),
    ).eval()


def pixels() -> Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_the_heatmaps_are_captums_of_the_predicted_class() -> None:
    network, images = small_network(), pixels()
    predicted = int(network(images).argmax())

    def log_odds(x: Tensor) -> Tensor:
        p = network(x).softmax(1)[:, predicted]
        return (p / (1 - p)).log()

    cam = LayerGradCam(log_odds, network[4]).attribute(images, relu_attributions=True)
    expected = LayerAttribution.interpolate(cam, (16, 16), "bilinear")
    found = _explain(GRAD_CAM, network, images, "multiclass")
    assert found.layer == "4"
    torch.testing.assert_close(found.heatmap, expected[0].detach(), rtol=1e-3, atol=1e-7)
    found = _explain(INTEGRATED_GRADIENTS, network, images, "multiclass")
    expected = IntegratedGradients(log_odds).attribute(images, torch.zeros_like(images))
    torch.testing.assert_close(
        found.heatmap, expected[0].sum(0, keepdim=True), rtol=1e-3, atol=1e-6
    )
    # They sum to what the image has beyond black, of one class all the way.
    difference = log_odds(images) - log_odds(torch.zeros_like(images))
    torch.testing.assert_close(found.heatmap.sum(), difference[0].detach(), rtol=1e-2, atol=1e-4)


def test_of_several_labels_the_logit_of_the_highest_is_explained() -> None:
    network, images = small_network(), pixels()
    logits = network(images)
    expected = IntegratedGradients(network).attribute(
        images, torch.zeros_like(images), target=int(logits.argmax())
    )
    found = _explain(INTEGRATED_GRADIENTS, network, images, "multilabel")
    torch.testing.assert_close(
        found.heatmap, expected[0].sum(0, keepdim=True), rtol=1e-3, atol=1e-6
    )


def test_a_single_logit_is_explained_for_the_class_that_it_speaks_for() -> None:
    network, images = small_network(1), pixels()
    sign = float(network(images).detach().sign())
    expected = IntegratedGradients(network).attribute(images, torch.zeros_like(images))
    found = _explain(INTEGRATED_GRADIENTS, network, images, "multiclass")
    torch.testing.assert_close(
        found.heatmap, sign * expected[0].sum(0, keepdim=True), rtol=1e-3, atol=1e-6
    )


def small_swin() -> nn.Module:
    return SwinTransformer([4, 4], 12, depths=[1, 1], num_heads=[2, 2], window_size=[2, 2])


def small_vit() -> nn.Module:
    network = VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16)
    nn.init.normal_(network.heads.head.weight)  # zeros in torchvision
    return network


@pytest.mark.parametrize(
    ("build", "places"),
    [(small_swin, Places((4, 4), "channels-last")), (small_vit, Places((2, 2), "tokens", 1))],
)
def test_layers_whose_channels_come_last_have_the_grad_cam_that_training_has(build, places) -> None:
    torch.manual_seed(0)
    network, images = build().eval(), torch.rand(1, 3, 32, 32).requires_grad_()
    layer = find_stages(network, (3, 32, 32))[-1]
    with hidden_outputs(network, [layer]) as outputs:
        logits = network(images)
    quantity = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
    features = outputs[layer]
    (gradient,) = torch.autograd.grad(quantity, features)
    own = [places.place(each.unsqueeze(1)).squeeze(1) for each in (features, gradient)]
    expected = torch.nn.functional.interpolate(grad_cam(*own), (32, 32), mode="bilinear")[0]
    found = _explain(GRAD_CAM, network, images, "multilabel")
    assert found.layer == layer
    scale = found.heatmap.max() / expected.max()  # training scales maps to 1
    torch.testing.assert_close(found.heatmap, scale * expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(network(images), logits)  # nothing is left in the network


class NoGradients(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(images.numpy()[:, :, 0, 0])


def test_what_cannot_be_given_is_said() -> None:
    image = pixels()[0].detach()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    traced = torch.jit.trace(small_network(), pixels().detach())
    found = {
        name: {
            each.method: each.why_not
            for each in second_opinion(network, image, OTHER_METHODS, heatmap=None)
        }
        for name, network in (("none", NoGradients()), ("flat", flat), ("traced", traced))
    }
    assert found["none"][LRP] == "it cannot explain the network"
    assert {found["none"][each] for each in OTHER_METHODS} == {"the network has no gradients"}
    assert "that has several places" in found["flat"][GRAD_CAM]
    assert "TorchScript" in found["traced"][GRAD_CAM]
    assert found["flat"][INTEGRATED_GRADIENTS] is found["traced"][INTEGRATED_GRADIENTS] is None


def test_captum_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    assert second_opinion(small_network(), pixels()[0], [], heatmap=None) == []
    with pytest.raises(ImportError, match=r"pip install 'faster-isnet\[captum\]'"):
        second_opinion(small_network(), pixels()[0], [GRAD_CAM], heatmap=None)


def test_the_share_is_of_what_is_positive_after_channels_are_summed() -> None:
    image, mask = pixels()[0].detach(), torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    heatmap = torch.zeros(3, 16, 16)
    heatmap[0, 0, 0], heatmap[0, 0, 15], heatmap[1, 5, 15], heatmap[2, 5, 15] = 3, 1, 9, -9.5
    lrp, _ = second_opinion(small_network(), image, [GRAD_CAM], heatmap=heatmap, mask=mask)
    assert lrp.background_share == pytest.approx(0.25)
    negative = second_opinion(small_network(), image, [GRAD_CAM], heatmap=-mask, mask=mask)
    assert negative[0].background_share is None


def pictured(area: float | None, **shares: float | None) -> PicturedImage:
    opinions = [
        Opinion(method=name.replace("_", "-"), background_share=share)
        for name, share in shares.items()
    ]
    return PicturedImage(f"{shares}", area, opinions)


@pytest.mark.parametrize(
    ("lrp", "other", "result"),
    [
        (0.2, 0.3, "agree"),
        (0.9, 0.8, "agree"),
        (0.2, 0.9, "disagree"),
        (0.2, 0.62, "open"),
        (0.62, 0.58, "agree"),
        (0.2, None, "unknown"),
    ],
)
def test_methods_disagree_if_one_has_more_than_the_area_and_another_less(
    lrp, other, result
) -> None:
    image = pictured(0.6, lrp=lrp, grad_cam=other)
    found = agreement([image, image, pictured(None, lrp=None, grad_cam=None)])
    assert found is not None
    assert (found.result, found.images) == (result, 2)
    assert found.images_apart == [image.name] * (2 if result == "disagree" else 0)


def test_each_share_is_compared_with_the_area_of_the_same_images() -> None:
    images = [pictured(0.9, lrp=0.5, grad_cam=0.5), pictured(0.1, lrp=0.5, grad_cam=None)]
    found = agreement(images)
    assert found is not None
    lrp, other = found.methods
    assert (lrp.images, lrp.area, lrp.compared) == (2, 0.5, "as much")
    assert (other.images, other.area, other.compared) == (1, 0.9, "less")
    assert agreement([PicturedImage("a", 0.5, [])]) is None
