"""What a notebook shows of an explanation."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from faster_isnet import NO_MASK, Explainer


@pytest.fixture
def explainer() -> Explainer:
    return Explainer(nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 8, 3)).eval())


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_each_image_stands_beside_its_heatmaps(explainer: Explainer) -> None:
    images = torch.rand(3, 3, 10, 8)
    explanation = explainer(images, "all-classes")
    names = ["cat", "dog", "bird"]
    figure = explanation.plot(images, class_names=names)
    assert len(figure.axes) == 3 * (1 + 3)
    predicted = explanation.logits.argmax(1).tolist()
    assert [title.split(",")[0] for title in titles(figure)] == [names[c] for c in predicted]
    assert len(explanation.plot(images, most=2).axes) == 2 * 4
    picture = explanation.show(images)
    assert picture.format == "PNG"
    assert picture.height > picture.width / 2


def test_of_several_labels_the_probability_is_a_sigmoid(explainer: Explainer) -> None:
    images = torch.rand(1, 3, 10, 8)
    explanation = explainer(images)
    probability = float(explanation.logits.sigmoid().max())
    (title,) = titles(explanation.plot(images, task="multilabel"))
    assert title.endswith(f", {100 * probability:.1f} %")
    with pytest.raises(ValueError, match="task"):
        explanation.plot(images, task="several")


def test_masks_are_outlined_where_there_are_some(explainer: Explainer) -> None:
    images = torch.rand(2, 3, 10, 8)
    masks = torch.full((2, 1, 10, 8), NO_MASK)
    masks[0] = 0
    masks[0, :, 3:6, 2:5] = 1
    first, _, second, _ = explainer(images).plot(images, masks).axes
    assert len(first.collections) > len(second.collections) == 0


def test_normalised_images_are_drawn_in_their_own_range(explainer: Explainer) -> None:
    images = torch.rand(1, 3, 10, 8) * 4 - 2
    drawn = explainer(images).plot(images).axes[0].images[0].get_array()
    assert drawn is not None
    assert drawn.min() == 0
    assert drawn.max() == 1


def test_what_does_not_fit_is_named(explainer: Explainer) -> None:
    images = torch.rand(2, 3, 10, 8)
    explanation = explainer(images)
    with pytest.raises(ValueError, match=r"images must be \[2, 3, 10, 8\], .* got \[1, 3, 10, 8\]"):
        explanation.plot(images[:1])
    with pytest.raises(ValueError, match="has no name"):
        explanation.plot(images, class_names=[])
    with pytest.raises(ValueError, match="most"):
        explanation.plot(images, most=0)
