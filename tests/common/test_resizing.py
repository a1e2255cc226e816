"""Images come to the size of a network as those who trained it had them, and masks with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from faster_isnet.common.resizing import CENTER, SQUASH, STRETCHED, Resizing
from faster_isnet.data.dataset import fit_image, fit_mask
from faster_isnet.data.images import read_image
from faster_isnet.models.backbones import published_images
from faster_isnet.models.own_networks import resizing_of

NEAR = {"rtol": 0.0, "atol": 1e-2}
"""Pillow rounds to 8 bits between columns and rows, and at the end: by up to 1/255 in all."""


@pytest.fixture(params=["wide", "tall"])
def photo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A photograph of 427 x 640 pixels, or turned on its side."""
    pixels = load_sample_image("china.jpg")
    path = tmp_path / "photo.png"
    Image.fromarray(pixels if request.param == "wide" else pixels.swapaxes(0, 1)).save(path)
    return path


class Configured(nn.Module):
    def __init__(self, configuration: dict[str, object]) -> None:
        super().__init__()
        self.pretrained_cfg = configuration


def unnormalised(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return images * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k",  # center, 0.95, bicubic
        "tf_efficientnet_b7.ns_jft_in1k",  # center, 0.949, at 600 pixels
        "dm_nfnet_f0.dm_in1k",  # squash, 0.9
        "vit_base_patch16_siglip_224.webli",  # squash, whole
        "inception_v3.tv_in1k",  # bilinear
    ],
)
def test_images_become_what_timm_makes_of_them(photo: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    known = timm.models.get_pretrained_cfg(name).to_dict()
    expected = timm.data.resolve_data_config({}, pretrained_cfg=known)
    transform = timm.data.create_transform(**expected, is_training=False)
    theirs = unnormalised(transform(Image.open(photo)), expected["mean"], expected["std"])
    resizing = resizing_of(Configured(known))
    ours = fit_image(read_image(photo), expected["input_size"][1:], 3, resizing)
    torch.testing.assert_close(ours, theirs, **NEAR)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "swin_v2_t", "inception_v3"])
def test_images_become_what_torchvision_makes_of_them(photo: Path, name: str) -> None:
    expected = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    theirs = unnormalised(expected(Image.open(photo)), expected.mean, expected.std)
    known = published_images(name)
    assert known is not None
    ours = fit_image(read_image(photo), known.shape[1:], 3, known.resizing)
    torch.testing.assert_close(ours, theirs, **NEAR)


def test_the_sides_of_all_published_networks_are_met() -> None:
    for name in torchvision.models.list_models(module=torchvision.models):
        expected = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        known = published_images(name)
        assert known is not None
        words = known.resizing.words(known.shape[1:])
        assert f"a shorter side of {expected.resize_size[0]} pixels" in words, name


@pytest.mark.parametrize(
    "resizing", [STRETCHED, Resizing(SQUASH, 0.7, "bicubic"), Resizing(CENTER, 0.8)]
)
@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_masks_are_where_their_images_are(resizing: Resizing, size: tuple[int, int]) -> None:
    rows, columns = torch.arange(90)[:, None], torch.arange(150)
    disc = ((rows - 30) ** 2 + (columns - 80) ** 2 < 24**2).float()[None]
    mask, image = fit_mask(disc, size, resizing), fit_image(disc, size, 1, resizing)
    assert mask.shape == image.shape == (1, *size)
    assert set(mask.unique().tolist()) == {0, 1}
    assert ((image > 0.5) != (mask == 1)).float().mean() < 0.02  # pixels at the outline


def test_words_say_what_is_done() -> None:
    for resizing, words in (
        (STRETCHED, "resized to 32 x 48 pixels (bilinear; the aspect ratio is not kept)"),
        (
            Resizing(SQUASH, 0.5, "bicubic"),
            "resized to 64 x 96 pixels (bicubic; the aspect ratio is not kept), of which the "
            "middle 32 x 48 are kept",
        ),
        (
            Resizing(CENTER),
            "resized to at least 32 x 48 pixels (bilinear), of which the middle 32 x 48 are kept",
        ),
    ):
        assert resizing.words((32, 48)) == words


def test_bars_beside_the_image_are_not_made() -> None:
    known = {"crop_mode": "border", "crop_pct": 1.0, "interpolation": "bicubic"}
    assert resizing_of(Configured(known)) == Resizing(SQUASH, 1.0, "bicubic")
    assert resizing_of(Configured({"mean": (0.5,)})) == STRETCHED


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crop_mode": "border"}, "crop_mode"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"crop_pct": 1.1}, "crop_pct"),
        ({"interpolation": "lanczos"}, "interpolation"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resizing(**given)  # type: ignore[arg-type]
