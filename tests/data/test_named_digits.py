from __future__ import annotations

import pytest
import torch

from faster_isnet.data import BiasedDigitsData


def test_digits_have_names_and_labels_as_images_of_files_do() -> None:
    data = BiasedDigitsData(train_size=20, val_size=10, test_size=10)
    sets = data.evaluation_sets("test")
    assert list(sets) == ["biased", "unbiased", "deceiving"]
    assert list(data.evaluation_sets("val")) == ["val"]
    digits = sets["deceiving"]
    names = [sample.name for sample in digits.samples]
    assert len(set(names)) == len(digits) == 10
    image, label, mask, _ = digits[3]
    sample = digits.samples[3]
    assert torch.equal(sample.read_image(), image)
    assert sample.label == int(label)
    read = sample.read_mask((48, 48))
    assert read is not None
    assert torch.equal(read, mask)
    assert data.unmasked_images("train") == []
    assert data.image_shape == tuple(image.shape)


def test_other_classes_are_refused() -> None:
    data = BiasedDigitsData()
    data.match_classes(list(data.class_names))
    with pytest.raises(ValueError, match="trained on"):
        data.match_classes(["cat", "dog"])
