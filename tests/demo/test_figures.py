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

from faster_isnet.demo.examples import Example
from faster_isnet.demo.figures import (
    accuracy_bars,
    background_bars,
    example_grid,
    overview_figure,
)
from faster_isnet.demo.metrics import TEST_SETS, ModelScores
from faster_isnet.plotting.heatmaps import model_colours, percent

CLASS_NAMES = ["zero", "one", "two"]
MODELS = {
    "standard": ModelScores(0.991, 0.612, 0.034, background_share=0.583),
    "isnet": ModelScores(0.982, 0.979, 0.975, background_share=0.041),
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
    accuracies, backgrounds = texts(accuracy_bars(MODELS)), texts(background_bars(MODELS))
    for scores in MODELS.values():
        assert {percent(getattr(scores, name)) for name in TEST_SETS} <= set(accuracies)
        assert percent(scores.background_share) in backgrounds


def test_lengths_of_bars_are_the_scores() -> None:
    (axes,) = accuracy_bars(MODELS).axes
    lengths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert lengths == [getattr(scores, name) for scores in MODELS.values() for name in TEST_SETS]


def test_a_model_has_one_colour_in_all_figures_and_no_two_share_it() -> None:
    models = MODELS | {"rrr": MODELS["isnet"], "gain": MODELS["isnet"]}
    wanted = model_colours(models)
    assert len(set(wanted.values())) == len(models)
    (axes,) = background_bars(models).axes
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == list(wanted.values())
    (axes,) = accuracy_bars(models).axes
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
    models = {"$\\broken{$": MODELS["isnet"]}
    strange = example(caption="$\\x{$", predictions={"standard": 2, "isnet": 0})
    grid = example_grid([strange], ["$\\a{$", "$\\b{$", "$\\c{$"])
    for figure in (accuracy_bars(models), background_bars(models), grid):
        pixels(figure)  # which fails where a formula is broken
        assert any("{$" in text for text in texts(figure))


def test_class_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="class 2 has no name: class_names has 2 entries"):
        example_grid([example()], ["zero", "one"])


@pytest.mark.parametrize("count", [0, 1, 6])
def test_overview_is_1200_wide_on_white_with_at_most_four_examples(count: int) -> None:
    figure = overview_figure(MODELS, [example()] * count, CLASS_NAMES)
    picture = pixels(figure)
    assert picture.shape[1] == 1200
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert texts(figure).count("Image\ntrue class one") == min(count, 4)


def test_bars_keep_their_room_beside_long_names_and_many_models() -> None:
    names = [f"a model with a long name {n}" for n in range(4)]
    figure = overview_figure(dict.fromkeys(names, MODELS["isnet"]), [], CLASS_NAMES)
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().width > 0.25


def test_nothing_global_is_touched() -> None:
    before = (pyplot.get_fignums(), dict(matplotlib.rcParams))
    pixels(overview_figure(MODELS, [example()], CLASS_NAMES))
    assert (pyplot.get_fignums(), dict(matplotlib.rcParams)) == before
