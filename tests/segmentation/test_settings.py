from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, asdict

import pytest
from jsonargparse import CLI

from faster_isnet.data import Augmentation
from faster_isnet.segmentation import SegmenterSettings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 100}, "size must be a multiple of 32, got 100; give 96 or 128"),
        ({"size": 32}, "size must be a number in [64, inf), got 32"),
        ({"epochs": 0}, "epochs must be a number in [1, inf), got 0"),
        ({"batch_size": 0}, "batch_size must be a number in [1"),
        ({"components": 0}, "components must be a number in [1"),
        ({"learning_rate": 0.0}, "learning_rate must be a number in (0"),
        ({"held_out": 0.0}, "held_out must be a number in (0, 1]"),
        ({"held_out": 1.0}, "held_out must be below 1"),
        ({"held_out": float("nan")}, "held_out must be a number"),
        ({"seed": -1}, "seed must be a number in [0"),
    ],
)
def test_checked(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SegmenterSettings(**change)


def given(settings: SegmenterSettings = SegmenterSettings()) -> SegmenterSettings:  # noqa: B008
    return settings


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        SegmenterSettings().size = 256


def test_through_json_and_back():
    settings = SegmenterSettings(
        size=256, encoder_weights="imagenet", augmentation=Augmentation(rotation=3), seed=7
    )
    assert SegmenterSettings.from_dict(json.loads(json.dumps(asdict(settings)))) == settings


def test_from_the_command_line():
    made = CLI(given, args=["--settings.size=256", "--settings.augmentation.rotation=0"])
    default = SegmenterSettings()
    assert (made.size, made.encoder) == (256, default.encoder)
    assert made.augmentation.rotation == 0
    assert made.augmentation.scaling == default.augmentation.scaling
