"""The explainer: numbers, conservation, and what it leaves of the model."""

from __future__ import annotations

import copy
import threading
from functools import partial

import captum.attr
import captum.metrics
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from faster_isnet import Explainer
from faster_isnet.explaining.targets import lowest_eta
from faster_isnet.relevance.composites import COMPOSITES
from golden_networks import Golden

TARGETS = {
    "label": "labels",
    "selective_lowest": "lowest-eta",
    "original_all_classes": "all-classes",
}


def network(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Dropout(0.3)),
        *(nn.Flatten(), nn.Linear(32, classes)),
    )


def test_an_explanation_is_printed_by_its_shapes() -> None:
    explanation = Explainer(network().eval(), layers=["4"])(torch.rand(2, 3, 8, 8), "all-classes")
    assert repr(explanation) == (
        "Explanation(logits: [2, 4], heatmap: [2, 4, 3, 8, 8], 4: [2, 4, 8, 2, 2])"
    )


def images(batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, 8, 8)


@pytest.mark.parametrize("input_rule", ["zb", None])
@pytest.mark.parametrize("name", TARGETS)
def test_published_heatmaps(golden: Golden, name: str, input_rule: str | None) -> None:
    target = golden["labels"] if name == "label" else TARGETS[name]
    explanation = Explainer(golden.model, input_rule=input_rule)(golden["input"], target)
    expected = golden[f"heatmap/flex_{name}_{input_rule or 'nozb'}"]
    assert (explanation.heatmap - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(explanation.logits, golden["logits"])


BLOCK_TARGETS = {
    "block_e_all_classes": ("epsilon", "all-classes"),
    "block_e_all_logits": ("epsilon", "all-logits"),
    "block_e_highest_logit": ("epsilon", None),
    # The published block form of η has no δ.
    "block_e_selective_lowest": ("epsilon", partial(lowest_eta, delta=0.0)),
    "block_zp_all_logits": ("zplus", "all-logits"),
    "block_zpe_all_logits": ("dual", "all-logits"),
}


@pytest.mark.parametrize("input_rule", ["zb", None])
@pytest.mark.parametrize("name", BLOCK_TARGETS)
def test_published_heatmaps_of_the_block_form(
    golden: Golden, name: str, input_rule: str | None
) -> None:
    composite, target = BLOCK_TARGETS[name]
    heatmap = Explainer(golden.model, composite, input_rule=input_rule)(
        golden["input"], target
    ).heatmap
    expected = golden[f"heatmap/{name}_{input_rule or 'nozb'}"]
    assert heatmap.shape == expected.shape
    for k in range(heatmap.shape[1]):
        difference = (heatmap[:, k] - expected[:, k]).norm()
        assert difference < 1e-5 * expected[:, k].norm()


def test_all_classes_in_one_pass_are_the_classes_one_by_one(golden: Golden) -> None:
    explainer = Explainer(golden.model.double(), input_rule="zb")
    x = golden["input"].double()
    together = explainer(x, "all-classes").heatmap
    one_by_one = torch.cat([explainer(x, c).heatmap for c in range(5)], 1)
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize("input_rule", ["zb", None])
@pytest.mark.parametrize("composite", COMPOSITES)
def test_all_classes_are_differentiated_as_the_classes_one_by_one(
    composite: str, input_rule: str | None
) -> None:
    model = network().double()
    model[6] = nn.Identity()  # dropout draws anew each time
    explainer, x = Explainer(model, composite, input_rule=input_rule), images().double()

    def gradients(targets: list[str] | list[int]) -> list[Tensor]:
        heatmaps = (explainer(x, target, differentiable=True).heatmap for target in targets)
        loss = sum((heatmap.square().sum() for heatmap in heatmaps), torch.zeros(()))
        return list(torch.autograd.grad(loss, [*model.parameters()], materialize_grads=True))

    torch.testing.assert_close(gradients(["all-classes"]), gradients([0, 1, 2, 3]))


@pytest.mark.parametrize("target", [None, 2, "lowest-eta", "all-classes", "all-logits"])
def test_a_sample_is_explained_alone_as_in_a_batch(golden: Golden, target: object) -> None:
    explainer = Explainer(golden.model.double(), input_rule="zb")
    x = golden["input"].double()
    batch = explainer(x, target).heatmap
    alone = torch.cat([explainer(sample[None], target).heatmap for sample in x])
    torch.testing.assert_close(batch, alone)
    torch.testing.assert_close(explainer(x.flip(0), target).heatmap, batch.flip(0))


def test_no_stabiliser_is_captums_gradient_times_input(golden: Golden) -> None:
    model, x = golden.model.double(), golden["input"].double()
    expected = captum.attr.InputXGradient(copy.deepcopy(model)).attribute(x.clone(), 1)
    torch.testing.assert_close(Explainer(model, epsilon=0.0).attribute(x, 1), expected)


def test_attribute_is_what_captums_metrics_take() -> None:
    explainer, x = Explainer(network().eval()), images()
    attribution = explainer.attribute(x, target=torch.tensor([0, 1, 2]))
    assert attribution.shape == x.shape
    with pytest.raises(ValueError, match="4 heatmaps a sample"):
        explainer.attribute(x, "all-classes")


SIZES = {"inception_v3": 299, "googlenet": 224, "alexnet": 224, "vgg": 224}
FAMILIES = (
    *("resnet", "resnext", "wide_resnet", "densenet", "vgg", "googlenet", "inception_v3"),
    *("squeezenet", "shufflenet_v2", "mnasnet", "regnet", "alexnet"),
)
CONSERVING = [
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if name.startswith(FAMILIES)
]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSERVING)
def test_relevance_is_conserved(name: str) -> None:
    """Σ relevance = q with ε → 0 and no biases, on models as torchvision makes them."""
    if name == "regnet_y_128gf":
        pytest.skip("needs 10 GiB; its blocks are those of the other eight regnet_y")
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=5, **options)
    model.double().eval()
    _conserving_parameters(model)
    size = next((s for family, s in SIZES.items() if name.startswith(family)), 64)
    x = torch.rand(1, 3, size, size, dtype=torch.float64)
    explanation = Explainer(model, epsilon=1e-12)(x)
    gap = explanation.heatmap.sum() - explanation.quantity
    assert gap.abs() / explanation.quantity.abs() < 1e-3


@torch.no_grad()
def _conserving_parameters(model: nn.Module) -> None:
    """Random weights of unit gain, and no biases."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.zero_()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                module.bias.zero_()


def snapshot(model: nn.Module) -> tuple[object, ...]:
    hooks = [
        (m._forward_hooks.copy(), m._forward_pre_hooks.copy(), m._backward_hooks.copy())
        for m in model.modules()
    ]
    attributes = [sorted(vars(m)) for m in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return hooks, attributes, list(state), [v.tolist() for v in state.values()]


def test_nothing_remains_on_the_model() -> None:
    model, x = network().eval(), images()
    before, logits = snapshot(model), model(x)
    Explainer(model, input_rule="zb", layers=["3", "5"])(x, "all-classes")
    assert snapshot(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert "faster_isnet" not in type(model(x).grad_fn).__module__
    torch.testing.assert_close(model(x), logits, rtol=0, atol=0)


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError


def test_nothing_remains_after_an_exception_in_the_middle() -> None:
    model, x = network().eval(), images()
    model.insert(5, Failing())
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError):
        Explainer(model, input_rule="zb", layers=["3"])(x)
    assert snapshot(model) == before
    y = x.clone().requires_grad_().relu()  # no mode is left behind either
    assert "ReluBackward" in type(y.grad_fn).__name__


def test_gradients_of_parameters_are_untouched() -> None:
    model, x = network().eval(), images()
    model(x).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    Explainer(model, input_rule="zb")(x)
    for p, grad in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.grad, grad)


def test_images_are_untouched() -> None:
    model, x = nn.Sequential(nn.ReLU(inplace=True), network()).eval(), images() - 0.5
    before = x.clone()
    Explainer(model)(x)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: type) -> None:
    model, x = network().eval(), images()
    expected = Explainer(model, input_rule="zb", layers=["3"])(x, "lowest-eta")
    with mode():
        inside = images() if mode is torch.no_grad else x.clone()
        explanation = Explainer(model, input_rule="zb", layers=["3"])(x.clone(), "lowest-eta")
        assert torch.is_inference(inside) == (mode is torch.inference_mode)
    torch.testing.assert_close(explanation.heatmap, expected.heatmap)
    torch.testing.assert_close(explanation.layers["3"], expected.layers["3"])


def test_frozen_parameters() -> None:
    model, x = network().eval(), images()
    expected = Explainer(model, input_rule="zb")(x).heatmap
    torch.testing.assert_close(
        Explainer(model.requires_grad_(False), input_rule="zb")(x).heatmap, expected
    )


def test_two_threads_explain_two_models_at_once() -> None:
    models = [network().eval() for _ in range(2)]
    batches = [images(16) for _ in range(2)]
    expected = [Explainer(m, layers=["3"])(x) for m, x in zip(models, batches, strict=True)]
    found: list[list[Tensor]] = [[], []]

    def work(i: int) -> None:
        explainer = Explainer(models[i], layers=["3"])
        found[i] = [explainer(batches[i]).heatmap for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert len(found[i]) == 20
        for heatmap in found[i]:
            torch.testing.assert_close(heatmap, expected[i].heatmap)


def test_two_threads_explain_one_model_at_once() -> None:
    model, batches = network().eval(), [images(8), images(8)]
    expected = [Explainer(model, layers=["3"])(x).layers["3"] for x in batches]
    results: dict[int, list[Tensor]] = {}

    def work(i: int) -> None:
        explainer = Explainer(model, layers=["3"])
        results[i] = [explainer(batches[i]).layers["3"] for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        for relevance in results[i]:
            torch.testing.assert_close(relevance, expected[i])


def test_differentiable_or_detached() -> None:
    model, x = network().eval(), images()
    assert not Explainer(model)(x).heatmap.requires_grad
    explanation = Explainer(model)(x, differentiable=True)
    explanation.heatmap.square().sum().backward()
    # A logit's relevance does not depend on its bias.
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == ["8.bias"]
    x.requires_grad_()
    Explainer(model)(x, differentiable=True).heatmap.square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_training_mode_has_the_statistics_of_one_forward_pass() -> None:
    model, x = network().train(), images()
    plain = copy.deepcopy(model)
    Explainer(model, input_rule="zb")(x)
    plain(x)
    for ours, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


class Returning(nn.Module):
    def __init__(self, what: object) -> None:
        super().__init__()
        self.model, self.what = network(), what

    def forward(self, x: Tensor) -> object:
        return self.what(self.model(x))


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (lambda y: (y, y), TypeError, "must return logits .* got tuple; wrap it"),
        (lambda y: y[:, :0], ValueError, r"B = 3 .*got shape \[3, 0\]"),
        (lambda y: y[:2], ValueError, r"B = 3 .*got shape \[2, 4\]"),
        (lambda y: y.softmax(1), RuntimeError, "no relevance reaches .*Return logits"),
        (lambda y: y.detach(), RuntimeError, "no relevance reaches"),
    ],
)
def test_what_the_model_returns_is_checked(what: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Explainer(Returning(what).eval())(images())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (images().numpy(), TypeError, "torch.Tensor"),
        ((images() * 255).byte(), TypeError, "uint8; scale them to floats"),
        (images().half(), TypeError, "float16; half precision"),
        (images()[0, 0, 0], ValueError, r"must be a batch \[B, ...\]"),
        (images()[:0], ValueError, "must be a batch"),
        (torch.full((2, 3, 8, 8), torch.nan), ValueError, r"NaN or infinite values, in samples \["),
    ],
)
def test_images_are_checked(x: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Explainer(network().eval())(x)


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match=r"torch.nn.Module, got builtin_function"):
        Explainer(torch.relu)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown composite 'flx'; did you mean 'flex'"):
        Explainer(network(), composite="flx")
    with pytest.raises(ValueError, match="unknown input_rule 'zB'; did you mean 'zb'"):
        Explainer(network(), input_rule="zB")
    with pytest.raises(ValueError, match=r"epsilon must be a number in \[0, inf\), got -1"):
        Explainer(network(), epsilon=-1)
    with pytest.raises(TypeError, match="DataParallel"):
        Explainer(nn.DataParallel(network()))
    with pytest.raises(TypeError, match="is compiled by"):
        Explainer(torch.compile(network()))
    with (
        pytest.raises(RuntimeError, match="autocast is on for cpu"),
        torch.autocast("cpu", torch.bfloat16),
    ):
        Explainer(network(), "zplus")(images())
    with pytest.raises(TypeError, match="TorchScript"):
        Explainer(torch.jit.trace(network().eval(), images()))
    with pytest.raises(ValueError, match="target 4 is out of range: the model has 4 classes"):
        Explainer(network())(images(), target=4)


def _first_convolution() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.full((1, 3, 8, 8), 255.0), r"\[255, 255\]"),
        (torch.full((1, 3, 8, 8), -2.0), r"\[-2, -2\]"),
        (torch.full((1, 3, 8, 8), 1.2), r"\[1.2, 1.2\]"),
    ],
)
def test_pixels_outside_of_the_box_are_refused(images: Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=rf"{found}.*\[0, 1\].*/ 255.*-mean/std"):
        Explainer(_first_convolution(), input_rule="zb")(images)
    Explainer(_first_convolution())(images)  # without zB there is no box
    Explainer(_first_convolution(), input_rule="zb", input_low=-2, input_high=255)(images)


def test_bounds_are_of_each_channel() -> None:
    explainer = Explainer(
        _first_convolution(), input_rule="zb", input_low=[0, -1, 0], input_high=[1, 1, 9]
    )
    images = torch.tensor([0.5, -0.5, 8.0])[:, None, None].expand(2, 3, 8, 8).clone()
    assert explainer(images).heatmap.isfinite().all()
    images[1, 0, 2, 2] = 8
    with pytest.raises(ValueError, match="the pixels lie in"):
        explainer(images)


def test_attribute_takes_what_captum_passes() -> None:
    explainer, x = Explainer(_first_convolution()), torch.rand(2, 3, 8, 8)
    expected = explainer.attribute(x, torch.tensor([1, 0]))
    for target in ((torch.tensor([1, 0]),), [1, 0], (1, 0), np.array([1, 0]), [np.int64(1), 0]):
        assert torch.equal(explainer.attribute(x, target), expected)
    for one in (np.int64(1), np.array(1), torch.tensor(1)):
        assert torch.equal(explainer.attribute(x, one), explainer.attribute(x, 1))
    (found,) = explainer.attribute((x,), [1, 0])
    assert torch.equal(found, expected)
    for wrong in (True, [0.5, 1], np.array([1.0, 0.0]), [True, False], [[1], "a"]):
        with pytest.raises(TypeError, match="target must"):
            explainer.attribute(x, wrong)


CAPTUMS = {
    "int": 1,
    "NumPy integer": np.int64(1),
    "tensor": torch.tensor([1, 0]),
    "tensor of one": torch.tensor(1),
    "list": [1, 0],
    "none": None,
}


@pytest.mark.parametrize("inputs", [lambda x: x, lambda x: (x,)], ids=["tensor", "tuple"])
@pytest.mark.parametrize("name", CAPTUMS)
def test_captums_sensitivity_takes_attribute_as_it_is(name: str, inputs: object) -> None:
    explainer, x = Explainer(_first_convolution()), torch.rand(2, 3, 8, 8)
    found = captum.metrics.sensitivity_max(
        explainer.attribute, inputs(x), target=CAPTUMS[name], max_examples_per_batch=4
    )
    assert found.shape == (2,)
    assert bool(((found > 0) & (found < 2)).all())


@pytest.mark.parametrize(
    "target", [np.array([1, 0]), (torch.tensor([1, 0]),), (1, 0)], ids=["array", "tuple", "numbers"]
)
def test_targets_that_captum_does_not_repeat_are_refused(target: object) -> None:
    explainer, x = Explainer(_first_convolution()), torch.rand(2, 3, 8, 8)
    assert explainer.attribute(x, target).shape == x.shape
    with pytest.raises(ValueError, match=r"shape \[20\], got \[2\] .*a tensor or a list"):
        captum.metrics.sensitivity_max(explainer.attribute, x, target=target)


def test_captums_infidelity_of_a_linear_model_is_zero() -> None:
    """What a perturbation changes is what the heatmap says, exactly where the model is linear."""
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(2, 3, 2, 2)

    def perturb(images: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, Tensor]:
        (image,) = images if isinstance(images, tuple) else (images,)
        kept = (torch.rand_like(image) < 0.5).float()
        return 1 - kept, image * kept  # of what is multiplied by the heatmap, x ⊙ G

    for target in (1, torch.tensor([1, 0]), [1, 0]):
        attribution = Explainer(model).attribute(x, target)
        found = captum.metrics.infidelity(model, perturb, x, attribution, target=target)
        torch.testing.assert_close(found, torch.zeros(2), atol=1e-10, rtol=0)
    with pytest.raises(TypeError, match=r"got tuple; .*attribute\(\), which captum's metrics take"):
        captum.metrics.sensitivity_max(Explainer(model), x, target=1)


def test_a_model_of_two_inputs_is_refused_by_name() -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, other: Tensor, scale: float = 1.0) -> Tensor:
            return (image + scale * other).mean((2, 3))

    with pytest.raises(TypeError, match=r"Two.forward needs image, other.*wrap the model"):
        Explainer(Two())(torch.rand(2, 3, 8, 8))
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(TypeError, match=r"got 2 inputs.*wrap the model"):
        Explainer(Two()).attribute((x, x))
