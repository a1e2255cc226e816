"""Images of a batch are mixed with their masks and labels."""

from __future__ import annotations

import copy
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet import NO_MASK, ISNet, ISNetLoss, LitISNet
from faster_isnet.methods import (
    GAIN,
    Batch,
    ClassificationLoss,
    GroupDRO,
    ISNetMethod,
    Masked,
    Method,
    Mixing,
    RightReasons,
    RRClArC,
    Standard,
    Swap,
    method_names,
    swap_backgrounds,
)
from faster_isnet.methods.mixing import MIXINGS
from faster_isnet.training.lit_classifier import LitClassifier
from marked_images import convolutional, marked_images
from toy_method import BlackBackground

COUNT = 12


def numbered(masked: int = COUNT, columns: int = 8) -> Batch:
    """Images of one value each, which is their class, and masks of two columns of four places."""
    images = torch.arange(COUNT, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 8, columns)
    masks = torch.zeros(COUNT, 1, 8, columns)
    for i in range(COUNT):
        left = 2 * (i % (columns // 2))
        masks[i, ..., left : left + 2] = 1
    masks[masked:] = NO_MASK
    return Batch(images.clone(), torch.arange(COUNT), masks)


def mixes(kind: str, batch: Batch, number: int = 20, **options: Any) -> list[Batch]:
    mixing = Mixing(kind, options.pop("alpha", None))
    classes = options.pop("classes", COUNT)
    return [mixing(batch, classes, **options) for _ in range(number)]


def test_mixup_blends_images_as_labels_and_unites_masks() -> None:
    batch = numbered(masked=8)
    seen = set[int]()
    for mixed in mixes("mixup", batch, alpha=1.0):
        labels, masks = mixed.needed("labels"), mixed.needed("masks")
        torch.testing.assert_close(labels.sum(1), torch.ones(COUNT))
        shown = labels @ torch.arange(COUNT, dtype=torch.float32)
        torch.testing.assert_close(mixed.images[:, 0, 0, 0], shown)
        for i in range(COUNT):
            sources = labels[i].nonzero().flatten()
            assert i in sources
            assert len({bool(each >= 8) for each in sources}) == 1  # with a mask, or without
            assert torch.equal(masks[i], batch.needed("masks")[sources].amax(0))
            seen.add(len(sources))
    assert seen == {1, 2}


def test_cutmix_labels_by_area_what_has_no_mask() -> None:
    batch = numbered()
    for masks, by_masks in ((None, True), (batch.masks, False)):
        for mixed in mixes("cutmix", batch._replace(masks=masks), by_masks=by_masks):
            assert mixed.masks is None
            for image, label in zip(mixed.images, mixed.needed("labels"), strict=True):
                area = torch.bincount(image.flatten().long(), minlength=COUNT) / image.numel()
                torch.testing.assert_close(label, area)


def test_cutmix_labels_by_what_is_to_be_seen_of_the_foregrounds() -> None:
    batch, several, background_alone, kept = numbered(), 0, 0, 0
    before = batch.needed("masks")
    for mixed in mixes("cutmix", batch, 40):
        for i, (image, label) in enumerate(zip(mixed.images, mixed.needed("labels"), strict=True)):
            source = image.long()  # whose pixel it is
            mask = mixed.needed("masks")[i]
            assert torch.equal(mask, before.gather(0, source[None])[0])
            visible = torch.tensor([(mask * (source == c)).sum() / 16 for c in range(COUNT)])
            torch.testing.assert_close(label, visible / visible.sum())
            assert visible.sum() >= 0.5
            pasted = len(source.unique()) > 1
            several += int((label > 0).sum() == 2)
            background_alone += bool(pasted and label[i] == 1)
            kept += not pasted
    assert several > 50
    assert background_alone > 20  # a pasted background has no label
    assert 0 < kept < 300


def test_a_small_object_counts_as_much_as_a_large_one() -> None:
    """Both are seen as a whole where a box covers one of them alone."""
    images = torch.tensor([0.0, 1.0]).reshape(2, 1, 1).expand(2, 1, 16)
    masks = torch.zeros(2, 1, 16)
    masks[0, ..., :1], masks[1, ..., 6:] = 1, 1
    found = [
        mixed.needed("labels")[0]
        for mixed in mixes("cutmix", Batch(images, torch.tensor([0, 1]), masks), 200, classes=2)
        if bool((mixed.images[0, ..., 6:] == 1).all() and (mixed.images[0, ..., :1] == 0).all())
    ]
    assert found
    assert all(label.tolist() == [0.5, 0.5] for label in found)


def test_of_several_labels_each_counts_by_its_own_foreground() -> None:
    batch = numbered()
    labels = torch.eye(COUNT)
    for mixed in mixes("cutmix", batch._replace(labels=labels), task="multilabel"):
        for i, (image, label) in enumerate(zip(mixed.images, mixed.needed("labels"), strict=True)):
            for c in label.nonzero().flatten().tolist():
                visible = (mixed.needed("masks")[i] * (image == c)).sum() / 16
                torch.testing.assert_close(label[c], visible)


@pytest.mark.parametrize("kind", MIXINGS)
@pytest.mark.parametrize("size", [(16,), (8, 8), (4, 4, 4)])
def test_nothing_is_read_and_any_dimensions_do(kind: str, size: tuple[int, ...]) -> None:
    """Tensors on the device "meta" have no values."""
    images = torch.zeros(4, 3, *size, device="meta")
    masks = torch.zeros(4, 1, *size, device="meta")
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    mixed = Mixing(kind)(Batch(images, labels, masks), classes=5)
    assert mixed.images.shape == images.shape
    assert mixed.needed("labels").shape == (4, 5)
    assert mixed.needed("masks").shape == masks.shape


def losses_of(method: Method, batch: Batch, **options: Any) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    network = method.build(convolutional(**options))
    torch.manual_seed(1)
    return method.training_losses(network, batch), network


def methods() -> list[Method]:
    isnet = ISNetMethod(ISNetLoss(0.5, cut_low=0.1), input_rule=None)
    part = ISNetMethod(ISNetLoss(0.5, cut_low=0.1), input_rule=None, supervised_part=0.5)
    classification = ClassificationLoss(class_weights=[1.0, 2.0], label_smoothing=0.1)
    own = ISNetLoss(0.5, cut_low=0.1, classification=ClassificationLoss(focusing=2.0))
    focal = ISNetMethod(own, input_rule=None, swapped_backgrounds=0)
    others = Standard(classification), Swap(), Masked(), RightReasons(), RRClArC()
    return [isnet, part, focal, *others]


@pytest.mark.parametrize("kind", MIXINGS)
def test_methods_train_on_mixed_images(kind: str) -> None:
    batch = marked_images(16)
    for method in methods():
        method.mixing = Mixing(kind, 1.0)
        losses, network = losses_of(method, batch)
        losses.total.backward()
        gradients = [p.grad for p in network.parameters()]
        assert all(g is not None and bool(g.isfinite().all()) for g in gradients), method.name
        soft = losses.labels
        assert soft.shape == (16, 2)
        assert bool(((soft > 0) & (soft < 1)).any()), method.name
        assert network.training


@pytest.mark.parametrize("kind", MIXINGS)
def test_of_several_labels_too(kind: str) -> None:
    batch = marked_images(16)
    batch = batch._replace(labels=torch.rand(16, 3).round())
    method = ISNetMethod(ISNetLoss(0.5, cut_low=0.1, task="multilabel"), input_rule=None)
    method.mixing = Mixing(kind, 1.0)
    losses, _ = losses_of(method, batch, classes=3)
    assert bool(losses.total.isfinite())
    assert bool(((losses.labels > 0) & (losses.labels < 1)).any())


def test_a_single_logit_is_that_of_two_classes() -> None:
    method = Standard()
    method.mixing = Mixing("mixup", 1.0)
    losses, _ = losses_of(method, marked_images(8), classes=1)
    assert losses.labels.shape == (8, 2)


def test_without_mixing_a_step_is_what_it_was() -> None:
    """The same loss, and as many random numbers."""
    batch = marked_images(8)
    method = ISNetMethod(ISNetLoss(0.5, cut_low=0.1), input_rule=None)
    losses, network = losses_of(method, batch)
    after = torch.rand(3)
    network = copy.deepcopy(network)
    torch.manual_seed(1)
    images = swap_backgrounds(batch.images, batch.masks, 1.0, generated=0.5)
    assert torch.equal(torch.rand(3), after)
    expected = method.loss(network.explain(images), batch.needed("labels"), batch.masks)
    torch.testing.assert_close(losses.total, expected.total)
    assert losses.labels is batch.labels


def test_backgrounds_are_swapped_or_filled_before_images_are_mixed() -> None:
    batch, given = marked_images(8), list[Batch]()
    masks = batch.needed("masks")

    def recorded(batch: Batch, *args: Any, **options: Any) -> Batch:
        given.append(batch)
        return batch

    for method in (ISNetMethod(ISNetLoss(cut_low=0.1), input_rule=None), Swap(), Masked(0.25)):
        method._mixing = recorded  # type: ignore[assignment]
        losses_of(method, batch)
        images = given[-1].images
        assert torch.equal(images * masks, batch.images * masks)
        assert not torch.equal(images, batch.images)
    assert bool((images[masks == 0] == 0.25).all())


@pytest.mark.parametrize(
    ("method", "kind"),
    [(GAIN(), each) for each in MIXINGS]
    + [(GroupDRO(), "mixup"), (Swap(consistency=1.0), "cutmix"), (BlackBackground(), "mixup")],
)
def test_other_methods_refuse_before_anything_is_read(method: Method, kind: Any) -> None:
    with pytest.raises(ValueError, match=f"mixing='{kind}' is not for .*right for no mixing"):
        LitClassifier(convolutional(), method, mixing=kind)
    assert method.mixing is None


def test_every_method_says_what_it_takes() -> None:
    takes = {name: set(kind.mixings) for name, kind in method_names().items()}
    both, cutmix = set(MIXINGS), {"cutmix"}
    assert takes.pop("multitask-unet") == takes.pop("segment-classify") == cutmix
    assert {name for name, kinds in takes.items() if not kinds} == {"gain", "group-dro", "ham"}
    assert all(kinds in (both, set()) for kinds in takes.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixing": "cutout"}, "unknown mixing 'cutout'.*'cutmix', 'mixup'"),
        ({"mixing": "mixup", "mixing_alpha": 0}, r"mixing_alpha must be a number in \(0, inf"),
        ({"mixing_alpha": 0.5}, "mixing_alpha=0.5 is of images that are mixed; set mixing="),
    ],
)
def test_other_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LitClassifier(convolutional(), Standard(), **options)


class Recording(nn.Module):
    """Keeps the first images that it was given in training, and in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = convolutional(), dict[bool, Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 1:
            self.seen.setdefault(self.training, images.detach().clone())
        return self.inner(images)  # type: ignore[no-any-return]


def test_a_training_mixes_and_its_validation_does_not(tmp_path: Any) -> None:
    images, labels, masks, _ = marked_images(16)
    data = DataLoader(TensorDataset(images, labels, masks), 16)  # type: ignore[arg-type]
    network = Recording()
    lit = LitISNet(
        ISNet(network, input_rule=None), mixing="mixup", mixing_alpha=1.0, swapped_backgrounds=0
    )
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(lit, data, data)
    assert torch.equal(network.seen[False], images)
    assert not torch.equal(network.seen[True], images)
    logged = trainer.callback_metrics
    assert 0 <= logged["train/accuracy"] <= 1
    assert bool(logged["train/loss"].isfinite())
    (path,) = tmp_path.rglob("*.ckpt")
    again = LitISNet.load_from_checkpoint(path, net=ISNet(Recording(), input_rule=None))
    assert again.method.mixing == Mixing("mixup", 1.0)


def test_accuracy_is_by_the_larger_label() -> None:
    class Fixed(Standard):
        def mixed(self, network: nn.Module, batch: Batch) -> Batch:
            return batch._replace(labels=torch.tensor([[0.6, 0.4]] * 3 + [[0.3, 0.7]]))

    lit, found = LitClassifier(nn.Flatten(), Fixed()), dict[str, Tensor]()
    lit.log_dict = lambda values, **options: found.update(values)  # type: ignore[method-assign,assignment]
    logits = torch.tensor([[1.0, 0.0]] * 4)
    lit.training_step((logits, torch.ones(4, dtype=torch.int64)), 0)
    assert found["train/accuracy"] == 0.75


def test_half_precision_keeps_the_gradient() -> None:
    """Autocast would keep weights that were cast without one, where classes are counted."""
    method = Standard()
    method.mixing = Mixing("mixup")
    network = convolutional()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.training_losses(network, marked_images(8))
    losses.total.backward()
    assert all(p.grad is not None for p in network.parameters())
