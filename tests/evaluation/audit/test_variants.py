"""What is shown of each image in an audit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from faster_isnet.evaluation.audit import ImageVariants
from faster_isnet.evaluation.audit.variants import ENLARGED, MASK_CHANGES, enlarged
from toy_images import CLASSES, toy_dataset

Items = list[tuple[Tensor, int, Tensor]]


@pytest.fixture
def items() -> Items:
    """Ten images of noise, each of a level of its own, with a square mask."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 24, 24)
    mask[:, 6:18, 8:20] = 1
    return [
        (0.08 * i + 0.1 * torch.rand(3, 24, 24, generator=generator), 0, mask) for i in range(10)
    ]


def levels(image: Tensor, mask: Tensor) -> Tensor:
    """Return which image each background pixel is of."""
    return (image.mean(0)[mask[0] != 1] / 0.08 - 0.6).round()


def shown_as(variants: ImageVariants, index: int, kind: str) -> Tensor:
    return variants[index][0][variants.names.index(kind)]


def test_the_foreground_stays_and_the_background_does_not(items: Items) -> None:
    variants = ImageVariants(items, list("ab" * 5), 0.1)
    for index, (image, _, mask) in enumerate(items):
        shown, masks = variants[index]
        assert torch.equal(masks[0], mask)
        by_name = dict(zip(variants.names, shown, strict=True))
        assert torch.equal(by_name["unchanged"], image)
        inside, outside = mask.expand(3, -1, -1) == 1, mask.expand(3, -1, -1) == 0
        for kind in variants.backgrounds:
            assert torch.equal(by_name[kind][inside], image[inside]), kind
            assert not torch.equal(by_name[kind][outside], image[outside]), kind
        removed = by_name["foreground removed"]
        assert torch.equal(removed[outside], image[outside])
        assert not torch.equal(removed[inside], image[inside])
        for number, change in enumerate(MASK_CHANGES, start=1):
            kept = masks[number].expand(3, -1, -1) == 1
            assert torch.equal(by_name[change][kept], image[kept])


def test_the_enlarged_image_owes_nothing_to_the_mask(items: Items) -> None:
    other = [(image, label, 1 - mask) for image, label, mask in items]
    for index in range(2):
        shown = [
            shown_as(ImageVariants(each, [0] * 10, 0.1), index, ENLARGED) for each in (items, other)
        ]
        assert torch.equal(*shown)


def test_enlarged_images_keep_their_centre_and_lose_their_edges() -> None:
    place = torch.linspace(-1, 1, 45)  # of each column, from the centre
    image = place.expand(1, 30, 45)
    larger = enlarged(image, 0.1)
    torch.testing.assert_close(larger, image / 1.1)
    torch.testing.assert_close(enlarged(image.mT, 0.1), image.mT / 1.1)
    noise = torch.rand(3, 20, 20)
    torch.testing.assert_close(enlarged(noise, 0), noise)
    assert enlarged(noise, 0.1).aminmax().max <= noise.max()


def test_masks_grow_and_shrink_by_a_share_of_their_own_size(items: Items) -> None:
    _, (mask, grown, shrunk) = ImageVariants(items, list("ab" * 5), 0.25)[0]  # 3 of 12 pixels
    assert (shrunk <= mask).all()
    assert (mask <= grown).all()
    rows = [int((each[0] == 1).any(1).sum()) for each in (mask, grown, shrunk)]
    assert rows == [12, 18, 6]
    _, same = ImageVariants(items, list("ab" * 5), 0)[0]
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])


def test_the_background_of_another_class_is_of_what_is_predicted_as_another(items: Items) -> None:
    predicted = ["first"] * 5 + ["second"] * 5
    variants = ImageVariants(items, predicted, 0.1)
    assert variants.realistic == "another class"
    sources = []
    for index in range(10):
        (source,) = (
            levels(shown_as(variants, index, "another class"), items[index][2]).mode().values[None]
        )
        sources.append(int(source))
        assert (source >= 5) == (index < 5)
    assert len(set(sources)) > 3


def test_without_two_kinds_of_predictions_it_is_of_another_image(items: Items) -> None:
    variants = ImageVariants(items, ["all the same"] * 10, 0.1)
    assert variants.realistic == "another image"
    assert "another class" not in variants.names
    for index in range(10):
        background = shown_as(variants, index, "another image")
        assert int(levels(background, items[index][2]).mode().values) != index


def test_variants_depend_on_the_seed_and_the_index_alone(items: Items) -> None:
    first, again, other = (ImageVariants(items, list("ab" * 5), 0.1, seed) for seed in (0, 0, 1))
    for index in (7, 2):
        assert torch.equal(first[index][0], again[index][0])
    assert not torch.equal(first[2][0], other[2][0])


def test_files_are_read_once_for_all_variants(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path)
    read: list[int] = []
    original = dataset.item_and_exact_mask
    dataset.item_and_exact_mask = lambda index: (read.append(index), original(index))[1]  # type: ignore[method-assign]
    variants = ImageVariants(dataset, [CLASSES[i % 3] for i in range(len(dataset))], 0.1)
    assert variants[4][0].shape[0] == len(variants.names) == 10
    assert read.count(4) == 1
    assert len(read) <= 3  # its own, and those whose backgrounds it gets


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask_change": 0.6}, "mask_change"),
        ({"seed": -1}, "seed"),
        ({"predicted": ["a"]}, "1 labels for 10 images"),
    ],
)
def test_what_is_wrong_is_named(items: Items, given: dict[str, object], message: str) -> None:
    options = {"predicted": list("ab" * 5), "mask_change": 0.1, **given}
    with pytest.raises(ValueError, match=message):
        ImageVariants(items, **options)  # type: ignore[arg-type]
