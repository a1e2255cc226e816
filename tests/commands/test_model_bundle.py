"""What is said of a network that does not take the images."""

from __future__ import annotations

import pytest

from faster_isnet.commands.model_bundle import check_runs
from faster_isnet.models import build_backbone
from faster_isnet.models.small_vit import SmallViT


def test_a_vision_transformer_of_another_size_is_named_with_its_size() -> None:
    model = build_backbone("vit_b_16", 3)
    with pytest.raises(ValueError, match=r"vit_b_16 .* 64 x 64 .*Expected 224.* \(--data.size"):
        check_runs(model, (3, 64, 64), "vit_b_16")


def test_so_are_images_that_patches_do_not_divide_and_too_small_ones() -> None:
    with pytest.raises(ValueError, match=r"small-vit .* 30 x 30 pixels .* multiples of 4\); give"):
        check_runs(SmallViT(3, patch=4), (3, 30, 30), "small-vit")
    model = build_backbone("ag-sononet-8", 3)
    with pytest.raises(ValueError, match=r"ag-sononet-8 does not run on images of .* 8 x 8 pixels"):
        check_runs(model, (3, 8, 8), "ag-sononet-8")
    check_runs(model, (3, 16, 16), "ag-sononet-8")
    assert model.training
