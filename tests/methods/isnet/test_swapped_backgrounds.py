"""An ISNet with attention swaps the backgrounds of its training images."""

from __future__ import annotations

import logging

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from faster_isnet import ISNet, ISNetLoss, LitISNet
from faster_isnet.common.batch import Batch
from faster_isnet.methods import ISNetMethod, swap_backgrounds


class Recording(nn.Module):
    """Keeps the images that it was given."""

    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True) if attends else None
        self.seen = list[Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        x = self.embed(images).flatten(2).mT
        if self.attention is not None:
            x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def batch() -> Batch:
    masks = torch.zeros(6, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    return Batch(torch.rand(6, 3, 8, 8), torch.arange(6) % 3, masks)


def swapped(method: ISNetMethod, network: ISNet, steps: int = 1) -> list[bool]:
    """Return in which steps backgrounds were swapped; foregrounds never are."""
    data, found = batch(), []
    for step in range(steps):
        method.set_progress(0, step)
        method.training_losses(network, data)
        (images, *_) = network.backbone.seen[-1:]
        assert torch.equal(images[..., 2:6, 2:6], data.images[..., 2:6, 2:6])
        found.append(not torch.equal(images, data.images))
    return found


def test_a_network_with_attention_is_swapped_from_the_second_step_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "faster_isnet")
    method = ISNetMethod()
    assert swapped(method, method.build(Recording(True)), 3) == [False, True, True]
    assert caplog.text.count("swapped_backgrounds=1") == 1
    assert method.needs_masks()
    assert method.reads_masks()


def test_a_network_without_attention_is_not() -> None:
    method = ISNetMethod()
    assert swapped(method, method.build(Recording(False)), 2) == [False, False]


@pytest.mark.parametrize("attends", [True, False])
def test_a_number_is_what_is_done(attends: bool) -> None:
    for share, expected in ((0.0, False), (1.0, True)):
        method = ISNetMethod(swapped_backgrounds=share)
        assert swapped(method, method.build(Recording(attends)), 2) == [expected] * 2


def test_without_a_heatmap_loss_nothing_is_swapped_unless_asked_for() -> None:
    method = ISNetMethod(ISNetLoss(0.0))
    assert swapped(method, method.build(Recording(True)), 2) == [False, False]
    assert not method.needs_masks()
    asked = ISNetMethod(ISNetLoss(0.0), swapped_backgrounds=1.0)
    assert swapped(asked, asked.build(Recording(False)), 1) == [True]
    assert asked.needs_masks()


def test_a_schedule_that_starts_at_0_swaps_at_once() -> None:
    method = ISNetMethod(heatmap_weight_schedule={0: 0.0, 9: 0.7})
    assert swapped(method, method.build(Recording(True)), 2) == [False, True]


@pytest.mark.parametrize("options", [{"supervised_part": 0.5}, {"supervise_every": 2}])
def test_it_holds_for_samples_and_steps_that_are_not_explained(options: dict[str, float]) -> None:
    """Of six images one keeps its background by chance; half of them would, if it did not hold."""
    method = ISNetMethod(swapped_backgrounds=1.0, **options)
    network, data = method.build(Recording(True)), batch()
    kept = 0
    for step in range(10):
        network.backbone.seen.clear()
        method.set_progress(0, step)
        method.training_losses(network, data)
        seen = torch.cat(network.backbone.seen)
        assert len(seen) == len(data.images)
        kept += sum(bool((image == each).all()) for image in seen for each in data.images)
    assert 0 < kept < 20


def test_validation_sees_the_images_as_they_are() -> None:
    method = ISNetMethod(swapped_backgrounds=1.0)
    network, data = method.build(Recording(True)), batch()
    method.losses(network, data)
    assert torch.equal(network.backbone.seen[-1], data.images)


def test_a_checkpoint_knows_whether_the_network_has_attention() -> None:
    method = ISNetMethod()
    assert "attends" not in method.state()
    swapped(method, method.build(Recording(True)))
    resumed = ISNetMethod()
    resumed.load_state(method.state())
    assert swapped(resumed, resumed.build(Recording(True))) == [True]


def test_other_values_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"swapped_backgrounds must be a number in \[0, 1\], got 1.5"
    ):
        ISNetMethod(swapped_backgrounds=1.5)
    with pytest.raises(ValueError, match="unknown swapped_backgrounds 'al'"):
        ISNetMethod(swapped_backgrounds="al")
    for share in (0.0, "auto"):
        with pytest.raises(ValueError, match=r"generated_backgrounds=0.5 .* give both"):
            ISNetMethod(swapped_backgrounds=share, generated_backgrounds=0.5)


def test_swapped_backgrounds_may_be_generated() -> None:
    """Of one colour or noise, they are no image's; foregrounds stay."""
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 3, 8, 8) / 10
    data = batch()._replace(images=images)
    method = ISNetMethod(swapped_backgrounds=1.0, generated_backgrounds=1.0)
    found = method.training_images(data)
    foreground = (data.masks == 1).expand_as(images)  # type: ignore[union-attr]
    assert torch.equal(found[foreground], images[foreground])
    levels = set(images[1:-1].unique().tolist())  # black and white may be the others
    assert not levels & set(found[~foreground].unique().tolist())


def test_the_heatmap_loss_weighs_less_beside_backgrounds_that_are_swapped_by_default() -> None:
    method = ISNetMethod()
    swapped(method, method.build(Recording(True)))
    assert method.loss.heatmap_weight == 0.1
    resumed = ISNetMethod()
    resumed.load_state(method.state())
    assert resumed.loss.heatmap_weight == 0.1


@pytest.mark.parametrize(
    ("method", "attends"),
    [
        (ISNetMethod(), False),
        (ISNetMethod(ISNetLoss(0.7)), True),
        (ISNetMethod(heatmap_weight_schedule={0: 0.7}), True),
        (ISNetMethod(swapped_backgrounds=1.0), True),
        (ISNetMethod(swapped_backgrounds=0.0), True),
    ],
)
def test_a_weight_that_is_given_stays(method: ISNetMethod, attends: bool) -> None:
    swapped(method, method.build(Recording(attends)))
    assert method.loss.heatmap_weight == 0.7


def test_c1_and_c2_are_calibrated_on_swapped_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = list[float]()

    def recorded(images: Tensor, masks: Tensor | None, share: float, **options: float) -> Tensor:
        shares.append(share)
        return swap_backgrounds(images, masks, share, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("faster_isnet.methods.isnet.method.swap_backgrounds", recorded)
    data = batch()
    samples = list(zip(data.images, data.labels, data.masks, strict=True))
    lit = LitISNet(
        ISNet(Recording(True)), ISNetLoss(cut_low="auto"), calibration_epochs=1, learning_rate=1e-3
    )
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lit, DataLoader(samples, batch_size=3))
    assert shares == [0.0, 1.0, 1.0, 1.0]  # two batches of the calibration, two of the training
