"""Batches: what data loaders give, in one form."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from faster_isnet import ISNet, ISNetLoss, LitISNet, calibrate
from faster_isnet.common.batch import Batch

IMAGES, LABELS = torch.rand(6, 3, 4, 4), torch.tensor([0, 1, 1, 0, 1, 0])
MASKS = torch.zeros(6, 1, 4, 4)
MASKS[..., 1:3, :2] = 1
ATTRIBUTES = torch.tensor([0, -1, 2, 0, 1, 0])


def same(ours: Batch, *theirs: Tensor | None) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("kind", [tuple, list, lambda entries: Batch(*entries)])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_sequences(kind: Any, number: int) -> None:
    entries = [IMAGES, LABELS, MASKS, ATTRIBUTES][:number]
    assert same(Batch.of(kind(entries)), *entries, *[None] * (4 - number))


def test_images_alone() -> None:
    assert same(Batch.of(IMAGES), IMAGES, None, None, None)


@settings(max_examples=30)
@given(
    st.sampled_from(["image", "images"]),
    st.sampled_from(["label", "labels", None]),
    st.sampled_from(["mask", "masks", None]),
    st.sampled_from(["attribute", "attributes", None]),
    st.permutations([0, 1, 2, 3, 4]),
)
def test_dictionaries_by_either_name_in_any_order(
    image: str, label: str | None, mask: str | None, attribute: str | None, order: list[int]
) -> None:
    entries = [(image, IMAGES), (label, LABELS), (mask, MASKS), ("patient", ["a"] * 6)]
    entries.append((attribute, ATTRIBUTES))
    batch = {entries[i][0]: entries[i][1] for i in order if entries[i][0] is not None}
    expected = LABELS if label else None, MASKS if mask else None, attribute and ATTRIBUTES
    assert same(Batch.of(batch), IMAGES, *expected)


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_masks_of_all_types_are_the_same(foreground: list[bool]) -> None:
    mask = torch.tensor(foreground).reshape(1, 1, 1, -1)
    images = torch.zeros(1, 3, 1, len(foreground))
    for given_ in (mask, mask.byte(), mask.byte() * 255, mask.float()):
        found = Batch.of((images, torch.tensor([0]), given_)).masks
        assert found is not None
        assert found.dtype == torch.float32
        assert torch.equal(found, mask.float())


@pytest.mark.parametrize("values", [[0, 128, 255], [0, 1, 255], [2], [1, 255]])
def test_grey_masks_are_refused_by_their_values(values: list[int]) -> None:
    masks = torch.tensor(values, dtype=torch.uint8)[None, None, None]
    listed = str(values).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ValueError, match=rf"0 and 255 \(or 0 and 1\) only, got {listed}; binaris"):
        Batch.of({"images": IMAGES, "masks": masks})


def test_floating_point_masks_stay_as_they_are() -> None:
    masks = torch.full((6, 1, 4, 4), -1.0)
    assert Batch.of((IMAGES, LABELS, masks)).masks is masks


@pytest.mark.parametrize(
    ("batch", "kind", "message"),
    [
        ({"pixels": IMAGES, "labels": LABELS}, ValueError, r"keys are \['pixels', 'labels'\]"),
        ((IMAGES, LABELS, MASKS, LABELS, LABELS), ValueError, "got 5 entries; give a dictionary"),
        ((IMAGES, LABELS, MASKS, ["a"] * 6), TypeError, r"integers \[B\], got list; number what"),
        ((IMAGES, LABELS, MASKS, torch.rand(6)), TypeError, "must be integers, got torch.float32"),
        ((IMAGES, LABELS, MASKS, LABELS[:2]), ValueError, r"each of 6 images, got the shape \[2\]"),
        ((), ValueError, "got 0 entries"),
        (7, TypeError, "got int"),
        (iter([IMAGES]), TypeError, "got list_iterator"),
    ],
)
def test_what_is_no_batch(batch: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        Batch.of(batch)


def test_what_is_needed() -> None:
    batch = Batch(IMAGES, LABELS)
    assert batch.needed("labels") is LABELS
    with pytest.raises(ValueError, match="the batch has no masks"):
        batch.needed("masks")


def test_select() -> None:
    chosen = torch.tensor([4, 1])
    whole = [IMAGES, LABELS, MASKS, ATTRIBUTES]
    assert same(Batch(*whole).select(chosen), *(part[chosen] for part in whole))
    assert same(Batch(IMAGES).select(chosen), IMAGES[chosen], None, None, None)


def test_a_clone_has_its_own_memory() -> None:
    batch = Batch(IMAGES.clone(), LABELS, None, ATTRIBUTES)
    copy = batch.clone()
    copy.images.zero_()
    assert same(batch, IMAGES, LABELS, None, ATTRIBUTES)
    assert copy.masks is None


def test_attributes_of_small_integers_are_int64() -> None:
    attributes = Batch.of((IMAGES, LABELS, MASKS, ATTRIBUTES.to(torch.int8))).attributes
    assert attributes is not None
    assert attributes.dtype == torch.int64


class Items(Dataset[Any]):
    """Items as a data set gives them, before a loader collates them."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Any:
        image, label, mask = IMAGES[index], int(LABELS[index]), MASKS[index]
        if self.form == "tuple":
            return image, label, mask
        if self.form == "list":
            return [image, label, mask]
        return {
            "image": image,
            "label": label,
            "mask": mask.byte() * 255,
            "name": f"{index}.png",
            "age": 40 + index,
        }


def trained(form: str) -> LitISNet:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    lit = LitISNet(ISNet(network), ISNetLoss(cut_low="auto"), calibration_epochs=1)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(Items(form), 3)
    trainer.fit(lit, loader, loader)
    assert trainer.callback_metrics["val/heatmap"] > 0
    return lit


def test_all_forms_train_and_calibrate_the_same() -> None:
    expected = trained("tuple")
    cuts = calibrate(expected.net, DataLoader(Items("tuple"), 3)).cuts
    for form in ("list", "dictionary"):
        lit = trained(form)
        assert lit.criterion.cuts == expected.criterion.cuts
        assert calibrate(lit.net, DataLoader(Items(form), 3)).cuts == cuts
        for ours, theirs in zip(lit.parameters(), expected.parameters(), strict=True):
            assert torch.equal(ours, theirs)
