"""How far two folders of masks agree, against what scikit-learn and SciPy say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import directed_hausdorff
from sklearn.metrics import f1_score, jaccard_score

from faster_isnet.segmentation import compare_masks


def write(path: Path, mask: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)
    return mask.astype(bool)


def blob(rng: np.random.Generator, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    rows, columns = np.indices(size)
    row, column, radius = rng.uniform(8, 22), rng.uniform(8, 32), rng.uniform(3, 8)
    return (rows - row) ** 2 + 0.5 * (columns - column) ** 2 < radius**2


def test_scores_are_those_of_other_packages_and_the_worst_come_first(tmp_path):
    rng = np.random.default_rng(0)
    pairs = {}
    for number in range(12):
        one, other = blob(rng), blob(rng)
        name = f"a/{number}.png"
        pairs[name] = write(tmp_path / "one" / name, one), write(tmp_path / "other" / name, other)
    write(tmp_path / "one/alone.png", blob(rng))
    table = compare_masks(tmp_path / "one", tmp_path / "other")
    assert len(table) == 12
    assert table["iou"].is_monotonic_increasing
    for row in table.itertuples():
        one, other = pairs[Path(row.mask).relative_to(tmp_path / "one").as_posix()]
        assert row.dice == pytest.approx(f1_score(one.ravel(), other.ravel()))
        assert row.iou == pytest.approx(jaccard_score(one.ravel(), other.ravel()))
        assert (row.area, row.other_area) == (one.mean(), other.mean())
        # Of filled shapes without holes the farthest pixel is on the outline.
        inside = np.argwhere(one), np.argwhere(other)
        farthest = max(directed_hausdorff(*inside)[0], directed_hausdorff(*inside[::-1])[0])
        assert row.hausdorff >= farthest - 1e-9
        assert row.hausdorff_95 <= row.hausdorff


def test_a_shift_is_its_distance(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[5:12, 5:15] = True
    write(tmp_path / "one/1.png", mask)
    write(tmp_path / "other/1.png", np.roll(mask, 4, axis=1))
    (row,) = compare_masks(tmp_path / "one", tmp_path / "other").to_dict("records")
    assert (row["hausdorff"], row["iou"]) == (4, 6 / 14)
    assert compare_masks(tmp_path / "one", tmp_path / "one")["hausdorff_95"].tolist() == [0]


def test_empty_masks(tmp_path):
    mask, empty = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    mask[0] = False
    for name, one, other in (("a", mask, empty), ("b", empty, empty)):
        write(tmp_path / f"one/{name}.png", one)
        write(tmp_path / f"other/{name}.png", other)
    first, second = compare_masks(tmp_path / "one", tmp_path / "other").to_dict("records")
    assert (first["dice"], first["iou"]) == (0, 0)
    assert np.isnan([first["hausdorff"], first["hausdorff_95"]]).all()
    assert [second[name] for name in ("dice", "iou", "hausdorff", "hausdorff_95")] == [1, 1, 0, 0]


def test_masks_that_cannot_be_compared_are_named(tmp_path):
    write(tmp_path / "one/1.png", np.ones((4, 4), bool))
    write(tmp_path / "other/2.png", np.ones((4, 4), bool))
    with pytest.raises(ValueError, match=r"no mask in .*one' has one of its name"):
        compare_masks(tmp_path / "one", tmp_path / "other")
    write(tmp_path / "one/1.tif", np.ones((4, 4), bool))
    with pytest.raises(ValueError, match=r"1.png' and .*1.tif' would be masks of one image"):
        compare_masks(tmp_path / "one", tmp_path / "other")
    (tmp_path / "one/1.tif").unlink()
    write(tmp_path / "other/1.png", np.ones((4, 5), bool))
    with pytest.raises(ValueError, match=r"4 rows of 4 pixels, but .* 4 of 5; they are not of one"):
        compare_masks(tmp_path / "one", tmp_path / "other")
