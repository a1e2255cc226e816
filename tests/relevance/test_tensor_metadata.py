"""What is known of a tensor is known of that alone, and as long as it is what it was."""

from __future__ import annotations

import torch

from faster_isnet.relevance.tensor_metadata import TensorMetadata


def test_what_is_written_over_or_detached_is_not_taken_for_what_it_was() -> None:
    metadata, x = TensorMetadata[str](), torch.rand(3, requires_grad=True).clone()
    metadata.put(x, "known")
    assert metadata.get(x.view_as(x)) == "known"
    assert metadata.get(x.detach()) is None
    assert metadata.get(x[:2]) is None
    assert metadata.get(x.clone()) is None
    x.view_as(x).mul_(2)
    assert metadata.get(x) is None
    assert metadata.get(x.view_as(x)) is None
