"""A single logit as logits of two classes."""

from __future__ import annotations

import torch

from faster_isnet.common.logits import class_logits


def test_a_single_logits_probabilities_are_sigmoids() -> None:
    z = torch.randn(7)
    for single in (z, z[:, None]):
        expected = torch.stack([(-z).sigmoid(), z.sigmoid()], 1)
        torch.testing.assert_close(class_logits(single).softmax(1), expected)


def test_others_stay_as_they_are() -> None:
    for classes in (2, 5):
        logits = torch.randn(3, classes)
        assert class_logits(logits) is logits


def test_one_class_of_several_labels_keeps_its_logit() -> None:
    z = torch.randn(7)
    assert torch.equal(class_logits(z, "multilabel"), z[:, None])
    assert torch.equal(class_logits(z[:, None], "multilabel"), z[:, None])
