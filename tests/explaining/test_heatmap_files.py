"""What is written of explanations is what the explainer says, and nothing is lost."""

from __future__ import annotations

import csv
import logging
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import normalize, pil_to_tensor

from faster_isnet import Explainer
from faster_isnet.explaining.heatmap_files import TABLE, write_explanations
from faster_isnet.models import build_backbone

NAMES = ["covid", "normal", "pneumonia"]


def prepare(path: Path) -> Tensor:
    return pil_to_tensor(Image.open(path).convert("RGB")).float() / 255


def photos(folder: Path, count: int, size: int = 16) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture
def explainer() -> Explainer:
    return Explainer(build_backbone("convnet", 3).eval())


def written(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(explainer: Explainer, images: list[Path], out: Path, **options: Any) -> list[Any]:
    return write_explanations(
        explainer, images, out, **{"prepare": prepare, "class_names": NAMES, **options}
    )


@pytest.mark.parametrize("target", [None, 1, "all-classes", "lowest-eta", "all-logits"])
def test_files_hold_what_the_explainer_says(
    tmp_path: Path, explainer: Explainer, target: int | str | None
) -> None:
    images = photos(tmp_path / "in", 3)
    rows = iter(write(explainer, images, tmp_path / "out", target=target, batch_size=2))
    listed = iter(written(tmp_path / "out"))
    for path in images:
        explanation = explainer(prepare(path)[None], target)
        logits = explanation.logits[0]
        classes = {
            None: [int(logits.argmax())],
            1: [1],
            "all-classes": [0, 1, 2],
            "lowest-eta": [int(logits.argmin())],
            "all-logits": [None],
        }[target]
        for k, index in enumerate(classes):
            row = next(rows)
            assert {key: str(value) for key, value in row.items()} == next(listed)
            assert row["image"] == str(path)
            assert row["class"] == ("all" if index is None else NAMES[index])
            assert row["quantity"] == pytest.approx(float(explanation.quantity[0, k]), abs=1e-6)
            if index is not None:
                assert row["probability"] == pytest.approx(float(logits.softmax(0)[index]))
            relevance = np.load(tmp_path / "out" / row["npy"])
            assert relevance.dtype == np.float32
            np.testing.assert_allclose(relevance, explanation.heatmap[0, k], atol=1e-6, rtol=1e-4)
            assert row["relevance"] == pytest.approx(float(relevance.sum(dtype=np.float64)))
            assert Image.open(tmp_path / "out" / row["png"]).width > 600
    assert list(rows) == list(listed) == []


def test_images_of_a_batch_share_a_call(tmp_path: Path, explainer: Explainer) -> None:
    sizes: list[int] = []
    explainer.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    write(explainer, photos(tmp_path, 5), tmp_path / "out", batch_size=2, formats=["npy"])
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("composite", ["flex", "dual"])
def test_many_classes_are_explained_in_parts(tmp_path: Path, composite: str) -> None:
    torch.manual_seed(0)
    explainer = Explainer(build_backbone("convnet", 40).eval(), composite)
    images, names = photos(tmp_path, 3), [f"class {number}" for number in range(40)]
    expected = torch.stack([explainer(prepare(p)[None], "all-classes").heatmap[0] for p in images])
    sizes: list[int] = []
    explainer.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    options: Any = {"target": "all-classes", "batch_size": 2, "formats": ["npy"]}
    rows = write(explainer, images, tmp_path / "out", class_names=names, **options)
    assert sizes == [2, 2, 2, 1, 1, 1]  # 16, 16 and 8 classes of two images, then of the last
    passes = range(1, 1 + explainer.composite.passes)
    assert [(row["image"], row["pass"], row["class"]) for row in rows] == [
        (str(path), number, name) for path in images for number in passes for name in names
    ]
    found = np.stack([np.load(tmp_path / "out" / row["npy"]) for row in rows])
    np.testing.assert_allclose(found, expected.flatten(0, 1), atol=1e-6, rtol=1e-3)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_alone(
    tmp_path: Path, explainer: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, options = photos(tmp_path, 2), {"target": "all-classes", "formats": ["npy"]}
    for stream, progress in ((StringIO(), True), (Terminal(), False), (Terminal(), True)):
        monkeypatch.setattr("sys.stderr", stream)
        write(explainer, images, tmp_path / "out", progress=progress, **options)
        assert ("6/6" in stream.getvalue()) == (stream.isatty() and progress)


def test_formats_are_those_asked_for(tmp_path: Path, explainer: Explainer) -> None:
    (row,) = write(explainer, photos(tmp_path, 1), tmp_path / "out", formats=["npy"])
    assert "png" not in row
    assert {path.name for path in (tmp_path / "out").iterdir()} == {TABLE, row["npy"]}


def test_labels_of_their_own_have_probabilities_of_their_own(
    tmp_path: Path, explainer: Explainer
) -> None:
    (path,) = photos(tmp_path, 1)
    options: Any = {"target": "all-classes", "task": "multilabel", "formats": ["npy"]}
    rows = write(explainer, [path], tmp_path / "out", **options)
    expected = explainer(prepare(path)[None]).logits[0].sigmoid().tolist()
    assert [row["probability"] for row in rows] == pytest.approx(expected)


def test_two_passes_have_two_heatmaps(tmp_path: Path) -> None:
    explainer = Explainer(build_backbone("convnet", 3).eval(), composite="dual")
    images = photos(tmp_path, 2)
    rows = write(explainer, images, tmp_path / "out", target="all-classes", formats=["npy"])
    assert [(row["pass"], row["class"]) for row in rows[:6]] == [
        (number, name) for number in (1, 2) for name in NAMES
    ]
    heatmap = explainer(prepare(images[1])[None], "all-classes").heatmap[0]
    found = np.stack([np.load(tmp_path / "out" / row["npy"]) for row in rows[6:]])
    np.testing.assert_allclose(found, heatmap, atol=1e-6, rtol=1e-3)
    assert len({row["npy"] for row in rows}) == 12


words = st.text(  # no file's name has the character of the number 0
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=300
)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), words, st.sampled_from([".png", ".jpg"])), min_size=1
    ),
    st.tuples(words, words),
)
def test_names_never_collide(
    tmp_path_factory: pytest.TempPathFactory,
    images: list[tuple[str, str, str]],
    class_names: tuple[str, str],
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    paths = [Path(f"{folder}/{stem}{suffix}") for folder, stem, suffix in images]
    out = tmp_path_factory.mktemp("out")
    rows = write_explanations(
        Explainer(model),
        paths,
        out,
        "all-classes",
        prepare=lambda _: torch.rand(1, 2, 2),
        class_names=class_names,
        formats=["npy"],
    )
    names = [str(row["npy"]).casefold() for row in rows]
    assert len(set(names)) == 2 * len(paths)
    assert {path.name.casefold() for path in out.iterdir()} == {*names, TABLE}
    assert [row["image"] for row in written(out)] == [str(path) for path in paths for _ in "ab"]


def test_names_say_image_and_class(tmp_path: Path, explainer: Explainer) -> None:
    images = photos(tmp_path / "in", 10)
    rows = write(explainer, images, tmp_path / "out", target=2, formats=["npy"])
    assert rows[3]["npy"] == "04-photo3-2-pneumonia.npy"


def test_an_unreadable_image_is_named_and_nothing_before_is_lost(
    tmp_path: Path, explainer: Explainer, caplog: pytest.LogCaptureFixture
) -> None:
    images, out = photos(tmp_path, 4), tmp_path / "out"
    images[2].write_bytes(images[2].read_bytes()[:100])
    with pytest.raises(ValueError, match=r"photo2\.png cannot be read .*: --skip-unreadable"):
        write(explainer, images, out, batch_size=2)
    rows = written(out)
    assert [row["image"] for row in rows] == [str(path) for path in images[:2]]
    files = {row[form] for row in rows for form in ("png", "npy")}
    assert {path.name for path in out.iterdir()} == {*files, TABLE}
    with caplog.at_level(logging.WARNING, logger="faster_isnet"):
        write(explainer, images, out, batch_size=2, skip_unreadable=True)
    assert [row["image"] for row in written(out)] == [str(images[n]) for n in (0, 1, 3)]
    (record,) = caplog.records
    assert "photo2.png cannot be read" in record.getMessage()


def test_a_run_that_reads_nothing_changes_nothing(tmp_path: Path, explainer: Explainer) -> None:
    images, out = photos(tmp_path, 2), tmp_path / "out"
    write(explainer, images, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    for path in images:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 2 images can be read; .*photo0\.png"):
        write(explainer, images, out, skip_unreadable=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def with_value(value: float, channels: int = 3) -> Any:
    return lambda _: torch.full((channels, 16, 16), value)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": []}, ValueError, "there are no images"),
        ({"prepare": with_value(torch.nan)}, ValueError, "photo0.png cannot be read .*NaN"),
        ({"prepare": with_value(2.0)}, ValueError, r"photo0.png.* drawn: .* got \[2, 2\]; give Ex"),
        ({"prepare": lambda _: None}, ValueError, "photo0.png cannot be read .*TypeError"),
        ({"class_names": ["a", "b"]}, ValueError, r"2 names \(a, b\), the model has 3 classes"),
        ({"target": 3}, ValueError, "target 3 is out of range: the model has 3 classes"),
        ({"target": "random-logit"}, ValueError, "unknown target 'random-logit'"),
        ({"target": torch.tensor([1])}, TypeError, "target must be a string, got Tensor"),
        ({"formats": ["jpg"]}, ValueError, "unknown format 'jpg'"),
        ({"task": "regression"}, ValueError, "unknown task 'regression'"),
        ({"batch_size": 0}, ValueError, "batch_size must be a number in"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path,
    explainer: Explainer,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    images = changes.pop("images", photos(tmp_path, 1))
    with pytest.raises(error, match=message):
        write(explainer, images, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_images_of_a_batch_have_one_size(tmp_path: Path, explainer: Explainer) -> None:
    images = photos(tmp_path / "a", 1) + photos(tmp_path / "b", 1, size=20)
    message = r"b/photo0.png is \[3, 20, 20\] and .*a/photo0.png \[3, 16, 16\]; resize"
    with pytest.raises(ValueError, match=message):
        write(explainer, images, tmp_path / "out")
    assert len(write(explainer, images, tmp_path / "out", batch_size=1)) == 2


def test_a_model_in_training_is_refused(tmp_path: Path, explainer: Explainer) -> None:
    explainer.model.train()
    with pytest.raises(ValueError, match=r"in training mode.*call model\.eval"):
        write(explainer, photos(tmp_path, 1), tmp_path / "out")


def test_heatmaps_that_are_not_finite_are_refused(tmp_path: Path, explainer: Explainer) -> None:
    nn.init.constant_(explainer.model.classifier.weight, torch.nan)
    with pytest.raises(
        FloatingPointError,
        match=r"of .*photo0\.png, the output of samples \[0\] of the batch is not",
    ):
        write(explainer, photos(tmp_path, 1), tmp_path / "out", formats=["npy"])
    assert not (tmp_path / "out").exists()


def test_the_picture_of_normalised_pixels_is_the_image(
    tmp_path: Path, explainer: Explainer
) -> None:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.2])
    outside = Explainer(explainer.model, input_low=-mean / std, input_high=(1 - mean) / std)
    images = photos(tmp_path / "in", 1)
    (plain,) = write(explainer, images, tmp_path / "out")

    def normalised(path: Path) -> Tensor:
        return normalize(prepare(path), mean.tolist(), std.tolist())

    (other,) = write(outside, images, tmp_path / "normalised", prepare=normalised)
    left = [
        np.asarray(Image.open(folder / row["png"]).convert("RGB"), dtype=int)[:, :400]
        for folder, row in ((tmp_path / "out", plain), (tmp_path / "normalised", other))
    ]
    assert left[0].std() > 50  # a picture, and not an empty field
    assert np.abs(left[0] - left[1]).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_of_any_number_of_channels_are_drawn(tmp_path: Path, channels: int) -> None:
    explainer = Explainer(nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, 3)).eval())
    images, prepared = photos(tmp_path, 1), with_value(0.5, channels)
    (row,) = write(explainer, images, tmp_path / "out", prepare=prepared)
    assert np.load(tmp_path / "out" / row["npy"]).shape == (channels, 16, 16)
    assert (tmp_path / "out" / row["png"]).exists()
