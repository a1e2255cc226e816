"""What an audit measures of classifiers of which it is known what they read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from faster_isnet.data import ImageDataset
from faster_isnet.evaluation.audit import (
    AuditedNetwork,
    Auditor,
    AuditSettings,
    Measured,
    Parts,
    audit_findings,
    auditor,
)
from toy_images import CLASSES, SIZE, Reader, toy_dataset

SETTINGS = AuditSettings(resamples=100, batch_size=4, accelerator="cpu")


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    return toy_dataset(tmp_path / "images", per_class=10)


def measured(network: nn.Module, dataset: ImageDataset, parts: Path, **options: object) -> Measured:
    audited = AuditedNetwork(network.eval(), CLASSES, **options)  # type: ignore[arg-type]
    return Auditor(audited, SETTINGS)(dataset, Parts(parts, {}))


def test_who_reads_the_foreground_never_changes_and_who_reads_the_background_does(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    found = {
        reads: audit_findings(measured(Reader(reads), dataset, tmp_path / str(reads)), SETTINGS)
        for reads in (True, False)
    }
    foreground, background = found[True], found[False]
    for kind, each in foreground.backgrounds.items():
        assert each.changed.value == each.probability_change.value == 0, kind
        assert 0 < (each.changed.high or 0) < 0.25  # none of 15 groups
    assert foreground.verdict(0.25) == "below"
    assert foreground.verdict(0.2) == "open"
    assert foreground.relevance is not None
    assert foreground.relevance.share.value == 0
    assert (foreground.relevance.excess.high or 0) < 0
    assert (foreground.unchanged_without_foreground.value or 0) > 0.5  # the same level is filled in
    assert background.backgrounds["another class"].changed.value == 1
    assert background.backgrounds["blur"].changed.value == 0  # it keeps the level
    assert background.verdict(0.2) == "above"
    assert background.relevance is not None
    assert background.relevance.share.value == 1
    assert (background.relevance.excess.low or 0) > 0
    assert background.unchanged_without_foreground.value == 1
    for each in (foreground, background):  # whose levels stay
        assert each.reference is not None
        assert each.reference.changed.value == 0
    assert background.reference is not None
    assert background.reference.excess.value == 1
    assert background.area.value == pytest.approx(1 - 16 / 144)


def test_each_class_and_attribute_is_judged_if_it_has_images_enough(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    found = measured(Reader(False), dataset, tmp_path / "parts")
    table = found.images.assign(
        attribute=["one scanner"] * 20 + ["another"] * 6 + ["seldom"] * 4,
        **{"changed: another class": [0.0] * 20 + [1.0] * 10},
    )
    judged = audit_findings(Measured(table, found.variants), SETTINGS)
    assert [(each.name, each.images) for each in judged.attributes] == [
        ("another", 6),
        ("one scanner", 20),
    ]
    assert [each.changed.value for each in judged.attributes] == [1, 0]
    assert judged.too_few == ["seldom"]
    assert sorted(each.name for each in judged.classes) == sorted(CLASSES)
    assert sum(each.images for each in judged.classes) == 30
    assert judged.verdict(0.1) == "above"
    sure = found.images["probability"] >= 0.5
    assert judged.confident is not None
    assert judged.confident.images == sure.sum()
    unsure = audit_findings(
        Measured(table.assign(probability=0.4), found.variants),
        SETTINGS,
    )
    assert unsure.confident is None
    assert judged.verdict(0.33) == "open"


def test_a_harmless_change_is_compared_image_by_image_and_never_judged_by(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    found = measured(Reader(False), dataset, tmp_path / "parts")
    by_background = [0.0] * 20 + [1.0] * 10
    for enlarged, excess, low in ((by_background, 0, 0), ([1.0] * 30, -2 / 3, -0.9)):
        columns = {"changed: another class": by_background, "changed: enlarged": enlarged}
        judged = audit_findings(Measured(found.images.assign(**columns), found.variants), SETTINGS)
        assert judged.reference is not None
        assert judged.reference.changed.value == pytest.approx(np.mean(enlarged))
        assert judged.reference.excess.value == pytest.approx(excess)
        assert judged.reference.excess.low == pytest.approx(low, abs=0.1)
        assert judged.changed.value == pytest.approx(1 / 3)
        assert judged.verdict(0.9) == "below"


def test_intervals_are_of_groups(dataset: ImageDataset, tmp_path: Path) -> None:
    found = measured(Reader(False), dataset, tmp_path / "parts")
    table = found.images.assign(**{"changed: another class": [0.0] * 15 + [1.0] * 15})
    widths = []
    for groups in (list(map(str, range(30))), [str(i // 10) for i in range(30)]):
        grouped = Measured(table.assign(group=groups), found.variants)
        score = audit_findings(grouped, SETTINGS).changed
        assert score.low is not None
        assert score.high is not None
        widths.append(score.high - score.low)
    assert widths[1] > 1.3 * widths[0]


def test_a_measurement_that_was_stopped_goes_on_and_gives_the_same(
    dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor, "_CHUNK", 8)
    whole = measured(Reader(False), dataset, tmp_path / "whole").images

    class Stopping(Reader):
        """Stops at its 32nd batch, of the second part."""

        calls = 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 32:
                raise KeyboardInterrupt
            return super().forward(images)

    stopping = Stopping(False)
    with pytest.raises(KeyboardInterrupt):
        measured(stopping, dataset, tmp_path / "parts")
    kept = sorted(path.name for path in (tmp_path / "parts").glob("*.parquet"))
    assert kept == ["images-0000000.parquet", "predictions.parquet"]
    counted = Stopping(False)
    counted.calls = 100
    pd.testing.assert_frame_equal(measured(counted, dataset, tmp_path / "parts").images, whole)
    from_scratch = Stopping(False)
    from_scratch.calls = 100
    measured(from_scratch, dataset, tmp_path / "again")
    assert counted.calls < from_scratch.calls  # what was measured was not measured again
    # Of another classifier nothing is taken over.
    Parts(tmp_path / "parts", {"model": "another"})
    assert not list((tmp_path / "parts").glob("*.parquet"))


def test_without_gradients_only_the_heatmaps_are_missing(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    class WithoutGradients(nn.Module):
        """Stands for a file that another program runs."""

        def __init__(self) -> None:
            super().__init__()
            self.reader = Reader(False)

        def forward(self, images: Tensor) -> Tensor:
            return torch.from_numpy(self.reader(images).detach().numpy())

    with_gradients = measured(Reader(False), dataset, tmp_path / "with").images
    without = measured(
        WithoutGradients(), dataset, tmp_path / "without", differentiable=False
    ).images
    columns = [name for name in with_gradients if not name.startswith("background share")]
    assert list(without) == columns
    pd.testing.assert_frame_equal(without, with_gradients[columns])


def test_of_several_labels_the_share_that_changes_is_measured(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    class Labels(nn.Module):
        """Assigns the first label by the foreground, the second by the background, no third."""

        def __init__(self) -> None:
            super().__init__()
            self.foreground, self.background = Reader(True), Reader(False)

        def forward(self, images: Tensor) -> Tensor:
            light = [each(images).softmax(1)[:, 2] for each in (self.foreground, self.background)]
            return 20 * (torch.stack([*light, torch.zeros_like(light[0])], 1) - 0.5)

    found = measured(Labels(), dataset, tmp_path / "parts", task="multilabel").images
    assert set(found["predicted"]) <= {"none", "dark", "grey", "dark, grey"}
    changes = found["changed: another class"].round(3)
    assert set(changes) <= {0, round(1 / 3, 3)}
    assert (changes > 0).any()


def test_networks_whose_logits_are_no_numbers_are_named(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    network = Reader(True)
    nn.init.constant_(network.linear.bias, float("nan"))
    with pytest.raises(ValueError, match="look at the model's logits"):
        measured(network, dataset, tmp_path / "parts")


def test_an_image_whose_mask_vanishes_when_resized_is_left_out(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    dot = np.zeros((SIZE, SIZE), np.uint8)
    dot[0, 0] = 255
    Image.fromarray(dot).save(tmp_path / "dot.png")
    dataset.samples[3] = replace(dataset.samples[3], mask=tmp_path / "dot.png")
    small = ImageDataset(dataset.samples, (SIZE // 2, SIZE // 2))
    assert not bool((small[3][2] == 1).any())
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * (SIZE // 2) ** 2, 3))
    table = measured(network, small, tmp_path / "parts").images
    kept = [sample.name for i, sample in enumerate(dataset.samples) if i != 3]
    assert table["name"].tolist() == kept


@pytest.mark.parametrize("name", ["resamples", "batch_size"])
def test_numbers_are_checked_before_anything_is_measured(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        AuditSettings(**{name: 0})


def test_workers_change_nothing(dataset: ImageDataset, tmp_path: Path) -> None:
    network = AuditedNetwork(Reader(False).eval(), CLASSES)
    tables = []
    for workers in (0, 2):
        settings = AuditSettings(batch_size=4, workers=workers, accelerator="cpu")
        parts = Parts(tmp_path / str(workers), {})
        tables.append(Auditor(network, settings)(dataset, parts).images)
    pd.testing.assert_frame_equal(*tables)
    assert np.isfinite(tables[0].select_dtypes("number").to_numpy()).all()
