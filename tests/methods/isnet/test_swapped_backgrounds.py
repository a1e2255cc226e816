"""An ISNet swaps the backgrounds of its training images."""

from __future__ import annotations

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

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 3)
        self.seen = list[Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.head(self.embed(images).flatten(2).mean(2))  # type: ignore[no-any-return]


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


def test_all_are_swapped_by_default() -> None:
    method = ISNetMethod()
    assert swapped(method, method.build(Recording()), 3) == [True] * 3
    assert method.needs_masks()
    assert method.reads_masks()


def test_none_are_if_so_chosen() -> None:
    method = ISNetMethod(swapped_backgrounds=0)
    assert swapped(method, method.build(Recording()), 2) == [False] * 2


def test_they_are_swapped_without_a_heatmap_loss_too() -> None:
    method = ISNetMethod(ISNetLoss(0.0))
    assert swapped(method, method.build(Recording())) == [True]
    assert method.needs_masks()
    neither = ISNetMethod(ISNetLoss(0.0), swapped_backgrounds=0)
    assert swapped(neither, neither.build(Recording())) == [False]
    assert not neither.needs_masks()
    assert not neither.summary()


@pytest.mark.parametrize("options", [{"supervised_part": 0.5}, {"supervise_every": 2}])
def test_it_holds_for_samples_and_steps_that_are_not_explained(options: dict[str, float]) -> None:
    """Of six images one keeps its background by chance; half of them would, if it did not hold."""
    method = ISNetMethod(swapped_backgrounds=1.0, **options)
    network, data = method.build(Recording()), batch()
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
    network, data = method.build(Recording()), batch()
    method.losses(network, data)
    assert torch.equal(network.backbone.seen[-1], data.images)


def test_other_values_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"swapped_backgrounds must be a number in \[0, 1\], got 1.5"
    ):
        ISNetMethod(swapped_backgrounds=1.5)
    with pytest.raises(TypeError, match=r"swapped_backgrounds must be a number .* got 'all'"):
        ISNetMethod(swapped_backgrounds="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="generated_backgrounds must be"):
        ISNetMethod(generated_backgrounds=-0.5)


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


@pytest.mark.parametrize(
    ("method", "weight"),
    [
        (ISNetMethod(), 0.1),
        (ISNetMethod(swapped_backgrounds=0.5), 0.1),
        (ISNetMethod(swapped_backgrounds=0), 0.7),  # the papers'
        (ISNetMethod(ISNetLoss(0.7)), 0.7),
        (ISNetMethod(ISNetLoss(0.4), swapped_backgrounds=0), 0.4),
    ],
)
def test_the_heatmap_loss_weighs_less_beside_swapped_backgrounds_unless_its_weight_is_given(
    method: ISNetMethod, weight: float
) -> None:
    assert method.loss.heatmap_weight == weight
    assert f"P = {weight}" in method.summary()


def test_a_training_says_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "faster_isnet")
    trained(LitISNet(ISNet(Recording())))
    assert "backgrounds are replaced in 100% of the images with a mask" in caplog.text
    assert "one colour or noise for 50% of them" in caplog.text
    assert "relevance in the background is penalised, P = 0.1" in caplog.text


def test_c1_and_c2_are_calibrated_on_swapped_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = list[float]()

    def recorded(images: Tensor, masks: Tensor | None, share: float, **options: float) -> Tensor:
        shares.append(share)
        return swap_backgrounds(images, masks, share, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("faster_isnet.methods.isnet.method.swap_backgrounds", recorded)
    net = ISNet(Recording())
    trained(LitISNet(net, ISNetLoss(cut_low="auto"), calibration_epochs=1, learning_rate=1e-3))
    assert shares == [1.0] * 4  # two batches of the calibration, two of the training


def trained(lit: LitISNet) -> None:
    data = batch()
    samples = list(zip(data.images, data.labels, data.masks, strict=True))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lit, DataLoader(samples, batch_size=3))
