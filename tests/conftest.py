"""Fixtures that several tests share."""

from __future__ import annotations

import pytest
import torch

from golden_networks import NETWORKS, Golden, load_golden


@pytest.fixture(params=list(NETWORKS))
def golden(request: pytest.FixtureRequest) -> Golden:
    """Yield each golden network, in eval mode, with what the published code computes on it."""
    return load_golden(request.param)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
