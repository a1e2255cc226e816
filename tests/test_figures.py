from __future__ import annotations

from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from faster_isnet.figures import (
    accuracy_bars,
    background_bars,
    draw_heatmap,
    example_grid,
    explanation_figure,
    heatmap_figure,
    image_figure,
    model_colours,
    overview_figure,
    percent,
    relevance_limit,
)
from faster_isnet.results import TEST_SETS, Example

CLASS_NAMES = ["zero", "one", "two"]
METRICS = {
    "standard": {"biased": 0.991, "unbiased": 0.612, "deceiving": 0.034, "background_share": 0.583},
    "isnet": {"biased": 0.982, "unbiased": 0.979, "deceiving": 0.975, "background_share": 0.041},
}


def example(**changes: object) -> Example:
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    fields = {
        "image": torch.rand(3, 8, 8),
        "mask": mask,
        "label": 1,
        "caption": "deceiving: mark of class two",
        "heatmaps": {"standard": torch.randn(3, 8, 8), "isnet": torch.randn(3, 8, 8)},
        "predictions": {"standard": 2, "isnet": 1},
    }
    return Example(**(fields | changes))  # type: ignore[arg-type]


def texts(figure: Figure) -> list[str]:
    """Return all that is written in the axes of a figure."""
    shown = []
    for axes in figure.axes:
        shown += [axes.get_title(), axes.get_title(loc="left")]
        shown += [text.get_text() for text in axes.texts]
        shown += [text.get_text() for text in axes.get_yticklabels()]
        if legend := axes.get_legend():
            shown += [text.get_text() for text in legend.get_texts()]
    return shown


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


def test_bars_show_every_score() -> None:
    accuracies, backgrounds = texts(accuracy_bars(METRICS)), texts(background_bars(METRICS))
    for score in METRICS.values():
        assert {percent(score[name]) for name in TEST_SETS} <= set(accuracies)
        assert percent(score["background_share"]) in backgrounds


def test_lengths_of_bars_are_the_scores() -> None:
    (axes,) = accuracy_bars(METRICS).axes
    lengths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert lengths == [score[name] for score in METRICS.values() for name in TEST_SETS]


def test_a_model_has_one_colour_in_all_figures_and_no_two_share_it() -> None:
    metrics = METRICS | {"rrr": METRICS["isnet"], "gain": METRICS["isnet"]}
    wanted = model_colours(metrics)
    assert len(set(wanted.values())) == len(metrics)
    (axes,) = background_bars(metrics).axes
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == list(wanted.values())
    (axes,) = accuracy_bars(metrics).axes
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches[::3]] == list(wanted.values())


def test_the_demos_models_keep_their_colours_in_any_company() -> None:
    assert model_colours(["rrr", "isnet"])["isnet"] == model_colours(["standard", "isnet"])["isnet"]


def test_grid_marks_wrong_predictions_and_only_those() -> None:
    shown = texts(example_grid([example()], CLASS_NAMES))
    assert "Image\ntrue class one" in shown
    assert "Standard\n✗ wrong: two" in shown
    assert "ISNet\n✓ right: one" in shown


def test_grid_without_examples_says_so() -> None:
    assert [text.get_text() for text in example_grid([], CLASS_NAMES).texts] == [
        "no example images"
    ]


def test_names_with_dollars_are_not_read_as_formulas() -> None:
    metrics = {"$\\broken{$": METRICS["isnet"]}
    strange = example(caption="$\\x{$", predictions={"standard": 2, "isnet": 0})
    grid = example_grid([strange], ["$\\a{$", "$\\b{$", "$\\c{$"])
    for figure in (accuracy_bars(metrics), background_bars(metrics), grid):
        pixels(figure)  # which fails where a formula is broken
        assert any("{$" in text for text in texts(figure))


def test_class_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="class 2 has no name: class_names has 2 entries"):
        example_grid([example()], ["zero", "one"])


@pytest.mark.parametrize("count", [0, 1, 6])
def test_overview_is_1200_wide_on_white_with_at_most_four_examples(count: int) -> None:
    figure = overview_figure(METRICS, [example()] * count, CLASS_NAMES)
    picture = pixels(figure)
    assert picture.shape[1] == 1200
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert texts(figure).count("Image\ntrue class one") == min(count, 4)


def test_bars_keep_their_room_beside_long_names_and_many_models() -> None:
    names = [f"a model with a long name {n}" for n in range(4)]
    figure = overview_figure(dict.fromkeys(names, METRICS["isnet"]), [], CLASS_NAMES)
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().width > 0.25


def test_nothing_global_is_touched() -> None:
    before = (pyplot.get_fignums(), dict(matplotlib.rcParams))
    pixels(overview_figure(METRICS, [example()], CLASS_NAMES))
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
