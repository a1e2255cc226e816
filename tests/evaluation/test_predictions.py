"""Predictions: made by a model, checked, written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from faster_isnet.evaluation.accuracy import accuracy
from faster_isnet.evaluation.predictions import Predictions, predict

NAMES, CLASSES = ["a.png", "b, c.png", 'd".png'], ["no", "yes, maybe", "10"]


def some(task: str = "multiclass", groups: list[str] | None = None) -> Predictions:
    labels = (
        np.array([0, 2, 1]) if task == "multiclass" else np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1]])
    )
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 3)
    return Predictions(NAMES, labels, probabilities, CLASSES, groups)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("groups", [None, ["007", "x", "x"]])
def test_round_trip(task: str, groups: list[str] | None, tmp_path: Path) -> None:
    before = some(task, groups)
    before.save(tmp_path / "predictions.csv")
    after = Predictions.load(tmp_path / "predictions.csv")
    assert (after.names, after.class_names, after.groups) == (NAMES, CLASSES, groups)
    assert after.task == task
    assert np.array_equal(after.labels, before.labels)
    assert np.array_equal(after.probabilities, before.probabilities)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_probabilities_survive_to_the_last_digit(values: list[float]) -> None:
    import tempfile

    n = len(values)
    before = Predictions([str(i) for i in range(n)], np.zeros(n, int), np.array([values]).T, ["x"])
    with tempfile.TemporaryDirectory() as folder:
        before.save(f"{folder}/p.csv")
        assert np.array_equal(
            Predictions.load(f"{folder}/p.csv").probabilities, before.probabilities
        )


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other.csv' holds no predictions"):
        Predictions.load(tmp_path / "other.csv")


@pytest.mark.parametrize("several", [False, True])
def test_predict_is_the_models_probabilities(several: bool) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3)).eval()
    x = torch.rand(5, 3, 2, 2)
    y = torch.randint(0, 2, (5, 3)).float() if several else torch.randint(0, 3, (5,))
    found = predict(model, [(x[:3], y[:3], None), (x[3:], y[3:])], CLASSES)
    expected = model(x).double()
    expected = expected.sigmoid() if several else expected.softmax(1)
    np.testing.assert_allclose(found.probabilities, expected.detach().numpy())
    assert np.array_equal(found.labels, y.long().numpy())
    assert found.names == ["0", "1", "2", "3", "4"]
    with pytest.raises(ValueError, match="training mode"):
        predict(model.train(), [(x, y)], CLASSES)
    with pytest.raises(ValueError, match="no images"):
        predict(model.eval(), [], CLASSES)


def test_a_single_logit_is_that_of_the_second_class() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).eval()
    x, y = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 1, 0, 1])
    yes = model(x).detach().double().sigmoid().flatten().numpy()
    for network in (model, nn.Sequential(*model, nn.Flatten(0)).eval()):
        found = predict(network, [{"image": x, "label": y}], ["no", "yes"])
        np.testing.assert_allclose(found.probabilities, np.stack([1 - yes, yes], 1))
        assert accuracy(network, [(x, y)]) == pytest.approx(((yes > 0.5) == y.numpy()).mean())


def test_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="the batch has no labels"):
        predict(nn.Flatten().eval(), [torch.rand(2, 3)], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.full((3, 3), np.nan)}, r"must lie in \[0, 1\]"),
        ({"probabilities": np.zeros((3, 2))}, r"must be \[3, 3\], .* got \[3, 2\]"),
        ({"labels": np.array([0, 1, 3])}, "from 0 to 2"),
        ({"labels": np.array([[0, 1, 2]] * 3)}, "from 0 to 1"),
        ({"labels": np.zeros((3, 2), int)}, r"if multi-label, got \[3, 2\]"),
        ({"groups": ["a"]}, "1 groups for 3 images"),
        ({"names": []}, "no images"),
    ],
)
def test_what_does_not_fit(change: dict, message: str) -> None:
    p = some()
    given = {"names": NAMES, "labels": p.labels, "probabilities": p.probabilities}
    with pytest.raises(ValueError, match=message):
        Predictions(**{**given, "class_names": CLASSES, "groups": None, **change})
