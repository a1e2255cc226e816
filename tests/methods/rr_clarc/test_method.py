"""The gradient of a layer is penalised along the directions of the background."""

from __future__ import annotations

import copy
from pathlib import Path

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import VisionTransformer

from faster_isnet import NO_MASK
from faster_isnet.methods import Batch, ClassificationLoss, RRClArC, Standard
from faster_isnet.training.lit_classifier import LitClassifier
from marked_images import accuracies, convolutional, marked_images, trained


def pooled_network(classes: int = 2) -> nn.Sequential:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, classes))
    return nn.Sequential(nn.Conv2d(1, 5, 3, 2), nn.Softplus(), *head)


@pytest.mark.slow
def test_it_follows_a_mark_less_than_the_standard_classifier() -> None:
    data = marked_images(512)
    standard = accuracies(trained(Standard(), convolutional(), data))
    torch.manual_seed(0)
    found = accuracies(trained(RRClArC(), convolutional(), data))
    assert standard["false"] < 0.2
    assert found["false"] > standard["false"] + 0.3
    assert found["none"] > 0.9


@pytest.mark.parametrize("members", [[0, 1], [1]])
def test_the_penalty_is_the_mean_squared_gradient_along_the_directions(members: list[int]) -> None:
    """Of a pool and a dense layer the gradient is known; a class without direction counts not."""
    batch, network = marked_images(6), pooled_network()
    method = RRClArC(layer="1", quantity="label", weight=3.0)
    shifts = torch.randn(2, 5)
    shifts[[c for c in (0, 1) if c not in members]] = 0
    method.directions.shifts = shifts
    losses = method.losses(network, batch)
    head = network[-1]
    assert isinstance(head, nn.Linear)
    gradient = head.weight[batch.labels] / 49  # of 7 × 7 places
    units = shifts[members] / shifts[members].norm(dim=1, keepdim=True)
    expected = ((gradient @ units.T) ** 2).mean()
    torch.testing.assert_close(losses.parts["penalty"], expected)
    torch.testing.assert_close(losses.total, losses.classification + 3 * expected)


def test_random_signs_have_the_sum_over_the_logits_as_their_mean() -> None:
    batch, network = marked_images(4000, classes=3), pooled_network(3)
    method = RRClArC(layer="1")
    method.directions.shifts = torch.randn(1, 5)
    unit = method.directions.unit_vectors()
    head = network[-1]
    assert isinstance(head, nn.Linear)
    expected = ((head.weight / 49 @ unit.T) ** 2).sum()
    found = method.losses(network, batch).parts["penalty"]
    assert found.item() == pytest.approx(expected.item(), rel=0.1)


def test_a_direction_is_that_of_the_largest_activations() -> None:
    """Images whose mark alone differs: channels of the first layer show where it went."""
    batch, network = marked_images(64), nn.Sequential(nn.Conv2d(1, 2, 1), *pooled_network()[2:])
    network[-1] = nn.Linear(2, 2)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
    method = RRClArC(layer="0")
    method.update_directions(network, batch)
    units = method.directions.unit_vectors()
    assert units is not None
    # A bright mark raises the largest value of the first channel; a dark one that of the second.
    assert units[1, 0] > 0.5
    assert units[0, 1] > 0.5


def test_the_gradient_of_the_loss_by_finite_differences() -> None:
    images, labels, masks, _ = marked_images(6)
    batch = Batch(images.double(), labels, masks)
    network = pooled_network().double()
    network.insert(2, nn.Conv2d(5, 5, 1).double())
    network.insert(3, nn.Tanh())
    method = RRClArC(layer="1", quantity="label", weight=100.0)
    method.update_directions(network, batch)
    weight = network[2].weight

    loss = method.losses(network, batch).total
    (gradient,) = torch.autograd.grad(loss, weight)
    direction, step = torch.randn_like(weight), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * step * direction)
        values.append(method.losses(network, batch).total.item())
        with torch.no_grad():
            weight.sub_(sign * step * direction)
    numerical = (values[0] - values[1]) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numerical, rel=1e-5)


def test_without_masks_it_is_the_standard_loss_until_directions_are_known() -> None:
    batch, network = marked_images(6), pooled_network()
    unmasked = batch._replace(masks=torch.full((6, 1, 16, 16), NO_MASK))
    expected = Standard().losses(network, batch).total
    method = RRClArC()
    for without in (unmasked, batch._replace(masks=None)):
        losses = method.training_losses(network, without)
        assert losses.parts["penalty"] == 0
        torch.testing.assert_close(losses.total, expected)
    method.training_losses(network, batch)
    assert method.training_losses(network, unmasked).parts["penalty"] > 0


def test_directions_are_updated_in_every_so_many_steps_and_leave_the_network_as_it_is() -> None:
    batch, network = marked_images(6), convolutional()
    method, found = RRClArC(update_every=3), []
    for step in range(5):
        method.set_progress(0, step)
        before = method.directions.shifts
        method.training_losses(network, batch)
        found.append(method.directions.shifts is not before)
    assert found == [True, False, False, True, False]
    states = copy.deepcopy(network.state_dict())
    method.update_directions(network, batch)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, states[name])


def test_a_network_with_attention_is_differentiated_twice() -> None:
    network = VisionTransformer(16, 4, 3, 2, 16, 32, num_classes=2)
    images, labels, masks, _ = marked_images(6)
    batch = Batch(images.expand(-1, 3, -1, -1), labels, masks)
    method = RRClArC(weight=1e6)
    nn.init.normal_(network.heads[0].weight)  # torchvision's is 0, so that its gradient is
    losses = method.training_losses(network, batch)
    assert method.layer == "encoder.layers.encoder_layer_1"  # the last reads the class token
    assert losses.parts["penalty"] > 0
    losses.total.backward()
    last = network.encoder.layers[2].self_attention.in_proj_weight
    assert last.grad is not None
    assert last.grad.isfinite().all()


@pytest.mark.parametrize(
    ("task", "logits"), [("multiclass", 1), ("multilabel", 3), ("multiclass", 3)]
)
@pytest.mark.parametrize("quantity", ["random-signs", "label"])
@pytest.mark.parametrize("mixed", [False, True])
def test_labels_and_logits_of_all_kinds(task: str, logits: int, quantity: str, mixed: bool) -> None:
    batch = marked_images(6, classes=max(2, logits))
    if task == "multilabel":
        batch = batch._replace(labels=(torch.rand(6, logits) < 0.5).float())
    method, network = RRClArC(ClassificationLoss(task), quantity=quantity), pooled_network(logits)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        losses = method.training_losses(network, batch)
    assert losses.parts["penalty"] > 0
    losses.total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


def test_soft_labels_of_one_class_are_hard_ones() -> None:
    batch, network = marked_images(6), pooled_network()
    hard, soft = RRClArC(quantity="label"), RRClArC(quantity="label")
    torch.manual_seed(1)
    expected = hard.training_losses(network, batch)
    assert batch.labels is not None
    torch.manual_seed(1)
    as_soft = torch.nn.functional.one_hot(batch.labels, 2).float()
    losses = soft.training_losses(network, batch._replace(labels=as_soft))
    assert losses.parts["penalty"] > 0
    torch.testing.assert_close(losses.total, expected.total)


def test_layers_that_do_not_fit_are_refused() -> None:
    batch, network = marked_images(4), pooled_network()
    with pytest.raises(ValueError, match="unknown layer 'conv'"):
        RRClArC(layer="conv").build(network)
    network[0].requires_grad_(False)
    with pytest.raises(ValueError, match="'0' has no gradient, as nothing before it is trained"):
        RRClArC(layer="0").training_losses(network, batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight must be a number in"),
        ({"decay": 1.0}, "decay must be less than 1"),
        ({"update_every": 0}, "update_every must be a number in"),
        ({"quantity": "labels"}, "unknown quantity 'labels'; did you mean 'label'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RRClArC(**options)


def test_masks_are_needed_if_there_is_a_penalty() -> None:
    assert RRClArC().needs_masks()
    assert RRClArC().reads_masks()
    assert not RRClArC(weight=0.0).needs_masks()
    assert not RRClArC(weight=0.0).reads_masks()


def test_it_trains_and_goes_on_from_a_checkpoint_and_is_exported(tmp_path: Path) -> None:
    batch = marked_images(24)
    loader = DataLoader(list(zip(*batch[:3], strict=True)), batch_size=8)

    def fit(epochs: int, checkpoint: Path | None) -> LitClassifier:
        torch.manual_seed(0)
        lit = LitClassifier(convolutional(), RRClArC(update_every=2), schedule="constant")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(lit, loader, loader, ckpt_path=checkpoint)
        assert trainer.callback_metrics["train/penalty"] > 0
        assert trainer.callback_metrics["val/penalty"] > 0
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return lit

    whole = fit(2, None)
    fit(1, None)
    resumed = fit(2, tmp_path / "1.ckpt")
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found)
    exported = torch.export.export(copy.deepcopy(whole.deployed).eval(), (batch.images[:2],))
    torch.testing.assert_close(
        exported.module()(batch.images[:2]), whole.deployed.eval()(batch.images[:2])
    )
