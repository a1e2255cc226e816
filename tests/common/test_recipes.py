"""Recipes: plain values that objects are constructed from again, and nothing else is."""

from __future__ import annotations

import fractions  # noqa: F401, imported and still not built: it is not recorded
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from faster_isnet import ISNet, ISNetLoss
from faster_isnet.common.recipes import Recorded, build, recipe
from faster_isnet.methods import ClassificationLoss, ISNetMethod
from faster_isnet.models import build_backbone

KEYS = st.sampled_from(["a", "b"]) | st.integers()
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)
LOSS = "faster_isnet.methods.isnet.loss.ISNetLoss"


class Counted(Recorded):
    made = 0

    def __init__(self, size: int = 1, *parts: Any, **options: Any) -> None:
        Counted.made += 1
        self.size, self.parts, self.options = size, parts, options


@given(PLAIN)
def test_plain_values_stay_as_they_are(value: Any) -> None:
    assert build(recipe(value)) == value


def test_arrays_and_ranges_become_lists() -> None:
    assert recipe(torch.tensor([[1, 2]])) == [[1, 2]]
    assert recipe(np.array([0.5, 1.5])) == [0.5, 1.5]
    assert recipe({"n": np.int64(3)}) == {"n": 3}
    assert recipe((1, range(2, 4))) == [1, [2, 3]]


def test_an_object_is_constructed_again_by_its_arguments() -> None:
    loss = ISNetLoss(0.5, gwrp_decay=0.8, classification=ClassificationLoss(label_smoothing=0.1))
    described = json.loads(json.dumps(recipe(loss)))
    again = build(described)
    assert isinstance(again, ISNetLoss)
    assert (again.heatmap_weight, again.gwrp_decay) == (0.5, 0.8)
    assert again.classification.label_smoothing == 0.1
    assert recipe(again) == recipe(loss)


def test_options_of_any_name_are_kept() -> None:
    method = ISNetMethod(ISNetLoss(0.5), variant="dual", epsilon=0.1)
    assert recipe(method)["init_args"]["variant"] == "dual"
    net = build(recipe(method)).build(build_backbone("convnet", 2))
    assert (net.variant, net.explainer.epsilon) == ("dual", 0.1)


def test_a_network_built_by_name_is_built_again() -> None:
    net = ISNet(build_backbone("convnet", 4, dropout=0.5), "original")
    again = build(recipe(net))
    assert again.variant == "original"
    again.load_state_dict(net.state_dict())
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(again.eval()(x), net.eval()(x))


def test_cuts_are_kept_as_they_are_now() -> None:
    loss = ISNetLoss(cut_low="auto")
    assert build(recipe(loss)).cuts is None
    for cuts in (ISNetLoss(cut_low=[1, 2]).cuts, ISNetLoss(cut_low={"image": 3, "l": 2}).cuts):
        loss.cuts = cuts
        assert build(recipe(loss)).cuts == cuts


def test_what_is_not_plain_is_refused_or_left_out_by_name() -> None:
    loss = ISNetLoss(0.5, classification=ClassificationLoss("multilabel", function=torch.sub))
    with pytest.raises(TypeError, match="cannot be written down"):
        recipe(loss)
    left_out: list[str] = []
    again = build(recipe(loss, left_out, "criterion"))
    assert left_out == ["criterion.classification.function"]
    assert (again.heatmap_weight, again.task) == (0.5, "multilabel")


def test_a_required_argument_is_never_left_out() -> None:
    with pytest.raises(TypeError, match="cannot be written down"):
        recipe(ISNet(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))), [])
    with pytest.raises(TypeError, match="cannot be written down"):
        recipe({"a": lambda: 0}, [])


HOSTILE: list[Any] = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "fractions.Fraction",
    "torch.nn.modules.linear.Linear",
    "torch.hub.load",
    "faster_isnet.cli.main",
    "faster_isnet.common.recipes.import_module",
    "faster_isnet.common.files.write_atomically",
    "faster_isnet.nowhere.Thing",
    "faster_isnet.common.recipes.Recorded.mro",
    "faster_isnet",
    "this.zen",
    "Counted",
    "",
    ".",
    None,
    ["os", "system"],
]


@pytest.mark.parametrize("path", HOSTILE)
@pytest.mark.parametrize("nested", [False, True])
def test_no_other_class_is_built(path: Any, nested: bool, tmp_path: Path) -> None:
    described: Any = {"class_path": path, "init_args": {"command": f"touch {tmp_path}/ran"}}
    if nested:
        counted = f"{Counted.__module__}.{Counted.__qualname__}"
        sys.modules.setdefault(Counted.__module__, sys.modules[__name__])
        described = {"class_path": counted, "init_args": {"size": {"class_path": counted},
                     "name": [described]}}  # fmt: skip
    made = Counted.made
    with pytest.raises(ValueError, match="is not known here"):
        build(described)
    assert Counted.made == made
    assert not list(tmp_path.iterdir())
    assert "this" not in sys.modules


def test_arguments_must_have_names() -> None:
    with pytest.raises(ValueError, match="have no names"):
        build({"class_path": LOSS, "init_args": [0.5]})


def test_a_class_that_was_imported_is_built_and_one_that_was_not_is_not(tmp_path: Path) -> None:
    (tmp_path / "their_method.py").write_text(
        "from faster_isnet.methods import Standard\nprint('imported')\n"
        "class Theirs(Standard):\n    pass\n"
    )
    script = (
        "from faster_isnet.common.recipes import build\n"
        "described = {'class_path': 'their_method.Theirs', 'init_args': {}}\n"
        "try:\n    build(described)\nexcept ValueError as error:\n    print(error)\n"
        "import their_method\nprint(type(build(described)).__name__)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    ).stdout.splitlines()
    assert "import the module that defines it first" in out[0]
    assert out[1:] == ["imported", "Theirs"]


def test_lazy_modules_are_not_made_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(type(sys)):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            pytest.fail("the module was asked for what it would import")

    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    with pytest.raises(ValueError, match="is not known here"):
        build({"class_path": "lazy.Thing"})
