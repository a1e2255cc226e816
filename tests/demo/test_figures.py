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

from faster_isnet.demo.figures import (
    accuracy_bars,
    background_bars,
    example_grid,
    overview_figure,
)
from faster_isnet.demo.results import TEST_SETS, Example
from faster_isnet.plotting.heatmaps import model_colours, percent

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
