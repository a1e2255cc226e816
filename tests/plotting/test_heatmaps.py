from __future__ import annotations

from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from faster_isnet.plotting.heatmaps import (
    draw_heatmap,
    explanation_figure,
    heatmap_figure,
    image_figure,
    model_colours,
    relevance_limit,
)


def pixels(figure: Figure) -> np.ndarray:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize("shift", [-3.0, 0.0, 5.0])
def test_colours_are_centred_on_zero_whatever_the_heatmap(shift: float) -> None:
    drawn = draw_heatmap(Figure().subplots(), torch.randn(3, 8, 8) + shift)
    low, high = drawn.get_clim()
    assert low == -high < 0


def test_heatmap_shows_the_sum_over_channels() -> None:
    heatmap = torch.randn(3, 5, 7)
    drawn = draw_heatmap(Figure().subplots(), heatmap)
    np.testing.assert_allclose(drawn.get_array(), heatmap.sum(0), rtol=1e-5, atol=1e-6)


def test_one_extreme_pixel_does_not_set_the_colours() -> None:
    relevance = np.ones(1000)
    relevance[0] = 1e6
    assert relevance_limit(relevance) == 1


@pytest.mark.parametrize(("value", "limit"), [(0.0, 1.0), (-2.0, 2.0)])
def test_a_heatmap_of_almost_only_zeros_has_a_colour_range(value: float, limit: float) -> None:
    relevance = np.zeros(10_000)
    relevance[0] = value
    assert relevance_limit(relevance) == limit


def test_zero_relevance_is_nearly_white_and_the_image_shines_through() -> None:
    image = torch.zeros(1, 8, 8)
    image[:, 3:5, 3:5] = 1
    picture = pixels(heatmap_figure(image, torch.zeros(1, 8, 8)))
    height, width, _ = picture.shape
    assert picture[height // 10, width // 10].min() > 240
    assert picture[height // 2, width // 2].max() < 230


def test_heatmaps_may_need_grad_and_be_of_half_precision() -> None:
    image, heatmap = torch.rand(1, 4, 4), torch.randn(1, 4, 4, dtype=torch.bfloat16)
    expected = pixels(heatmap_figure(image, heatmap.float()))
    assert np.array_equal(pixels(heatmap_figure(image, heatmap.requires_grad_())), expected)


def test_picture_keeps_the_shape_of_the_image() -> None:
    height, width, _ = pixels(image_figure(torch.rand(1, 10, 20))).shape
    assert width == pytest.approx(2 * height, abs=2)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_masks_without_and_with_nothing_but_foreground_are_drawn(fill: float) -> None:
    image = torch.full((1, 6, 6), 0.5)
    bare = pixels(image_figure(image))
    outlined = pixels(image_figure(image, torch.full((1, 6, 6), fill)))
    assert (bare != outlined).any() == bool(fill)  # an outline along the border, or none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heatmap": torch.zeros(1, 4, 5)}, r"image must be of size \[4, 5\], got \[4, 4\]"),
        ({"heatmap": torch.zeros(4, 4)}, r"heatmap must have shape \[C, H, W\], got \[4, 4\]"),
        ({"heatmap": torch.full((1, 4, 4), torch.nan)}, "heatmap has values that are not finite"),
        ({"image": torch.full((1, 4, 4), 255.0)}, r"image must be in \[0, 1\], got \[255, 255\]"),
        ({"image": torch.zeros(2, 4, 4)}, r"image must have shape \[1, H, W\] or \[3, H, W\]"),
        ({"mask": torch.zeros(1, 3, 4)}, r"mask must be of size \[4, 4\], got \[3, 4\]"),
        ({"mask": torch.full((1, 4, 4), 0.5)}, "mask must hold only 0 and 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, torch.Tensor], message: str) -> None:
    fitting = {"image": torch.zeros(1, 4, 4), "heatmap": torch.zeros(1, 4, 4)}
    with pytest.raises(ValueError, match=message):
        heatmap_figure(**(fitting | arguments))


def test_the_demos_models_keep_their_colours_in_any_company() -> None:
    assert model_colours(["rrr", "isnet"])["isnet"] == model_colours(["standard", "isnet"])["isnet"]


def test_nothing_global_is_touched() -> None:
    before = (pyplot.get_fignums(), dict(matplotlib.rcParams))
    pixels(image_figure(torch.rand(1, 8, 8)))
    assert (pyplot.get_fignums(), dict(matplotlib.rcParams)) == before


@pytest.mark.parametrize("size", [(8, 8), (5, 40), (40, 5), (300, 200)])
@pytest.mark.parametrize("name", ["a.png", "a long name of an image " * 3, "x" * 120])
def test_an_explanation_fits_into_its_figure(size: tuple[int, int], name: str) -> None:
    heatmap = 1e-7 * torch.randn(3, *size)
    figure = explanation_figure(torch.rand(3, *size), heatmap, name=name, title="covid, 33.3 %")
    figure.draw_without_rendering()
    left, right, scale = (axes.get_tightbbox() for axes in figure.axes)
    for box in (left, right, scale):
        assert box is not None
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1
    assert left.x1 < right.x0
    assert right.x1 < scale.x0


@pytest.mark.parametrize("exponent", [-30, -7, -1, 0, 2, 12])
def test_the_scale_of_an_explanation_has_short_numbers(exponent: int) -> None:
    heatmap = torch.full((1, 4, 4), 5.0 * 10.0**exponent)
    figure = explanation_figure(torch.rand(1, 4, 4), heatmap, name="", title="")
    figure.draw_without_rendering()
    scale = figure.axes[2]
    for label, value in zip(scale.get_yticklabels(), scale.get_yticks(), strict=True):
        written = label.get_text()
        assert len(written) <= 5
        factor = 1 if scale.get_ylabel() == "relevance" else 10.0**exponent
        assert float(written) * factor == pytest.approx(value)
