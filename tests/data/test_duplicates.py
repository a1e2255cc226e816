from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from faster_isnet.data.duplicates import (
    group_near_duplicates,
    near_pairs,
    perceptual_hash,
    pixel_hash,
)
from faster_isnet.data.samples import Sample

quick = settings(max_examples=20)


def scene(seed: int, side: int = 96) -> torch.Tensor:
    """A smooth picture, as photographs are: noise drawn out."""
    noise = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (side, side), mode="bicubic", align_corners=False)[0].clamp(0, 1)


def compressed(image: torch.Tensor) -> torch.Tensor:
    file = BytesIO()
    Image.fromarray((image[0] * 255).byte().numpy()).save(file, "JPEG", quality=60)
    return torch.from_numpy(np.array(Image.open(file)))[None] / 255


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return (perceptual_hash(one) != perceptual_hash(other)).float().mean().item()


@quick
@given(seed=st.integers(0, 10**6))
def test_the_hash_is_invariant_to_scale_compression_and_exposure(seed):
    image = scene(seed)
    for changed in (
        compressed(image),
        0.7 * image + 0.2,
        F.interpolate(image[None], scale_factor=0.7, mode="bilinear", antialias=True)[0],
        image.expand(3, -1, -1),
        (image + 0.02 * torch.randn_like(image)).clamp(0, 1),
    ):
        assert difference(image, changed) < 0.15


def test_other_pictures_have_other_hashes():
    hashes = [perceptual_hash(scene(seed)) for seed in range(150)]
    assert near_pairs(hashes) == []
    assert all(len(h) == 255 and set(h.unique().tolist()) == {-1.0, 1.0} for h in hashes)


@quick
@given(distance=st.floats(0, 1), seed=st.integers(0, 99))
@example(distance=0.58, seed=0)  # of 100 places 58, and 100 · 0.58 is below that
def test_near_pairs_as_counted_one_by_one(distance, seed):
    rng = np.random.default_rng(seed)
    hashes = [torch.from_numpy(rng.choice([-1.0, 1.0], 100)) for _ in range(12)]
    expected = [
        (i, j)
        for i in range(12)
        for j in range(i + 1, 12)
        if (hashes[i] != hashes[j]).sum() <= 100 * distance + 1e-9
    ]
    assert near_pairs(hashes, distance) == expected


def test_of_many_in_several_blocks(monkeypatch):
    hashes = [perceptual_hash(scene(seed % 7)) for seed in range(20)]
    whole = near_pairs(hashes)
    monkeypatch.setattr("faster_isnet.data.duplicates._BLOCK", 3)
    assert sorted(near_pairs(hashes)) == sorted(whole)
    assert whole == [(i, j) for i in range(20) for j in range(i + 1, 20) if (j - i) % 7 == 0]
    assert near_pairs([]) == []


def test_pixel_hash():
    image = torch.rand(1, 4, 6)
    assert pixel_hash(image) == pixel_hash(image.clone())
    other = image.clone()
    other[0, 3, 5] += 1e-3
    assert len({pixel_hash(x) for x in (image, other, image.mT, image.reshape(1, 6, 4))}) == 4


@pytest.fixture
def pictures(tmp_path) -> list[Sample]:
    """a, b, c; a again, smaller; and one that cannot be read."""
    for name, image in {"a": scene(0), "b": scene(1), "c": scene(2), "a2": scene(0, 64)}.items():
        Image.fromarray((image[0] * 255).byte().numpy()).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_text("no image")
    return [Sample(tmp_path / f"{name}.png") for name in ("a", "b", "c", "a2", "broken")]


def test_the_same_pictures_make_a_group(pictures):
    groups = [sample.group for sample in group_near_duplicates(pictures)]
    assert groups == [pictures[0].name, None, None, pictures[0].name, None]


def test_groups_are_merged(pictures):
    a, b, c, a2, broken = pictures
    tagged = [a, *(Sample(s.image, group="ann") for s in (b, a2)), c, broken]
    found = {Path(s.name).stem: s.group for s in group_near_duplicates(tagged)}
    assert found["a"] == found["a2"] == found["b"]
    assert found["c"] is None
    assert found["broken"] is None
