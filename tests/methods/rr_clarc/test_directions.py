"""Directions are signal CAVs of the background."""

from __future__ import annotations

import torch

from faster_isnet.methods.rr_clarc.directions import BackgroundDirections


def test_a_direction_is_the_covariance_with_the_background_by_its_variance() -> None:
    own, other = torch.randn(20, 5, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
    kept = BackgroundDirections(0.0)
    kept.update(own - other, torch.ones(20, 1, dtype=torch.float64))
    features = torch.cat([own, other])
    is_own = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat_interleave(20)
    centred = is_own - is_own.mean()
    cav = ((features - features.mean(0)) * centred[:, None]).sum(0) / (centred**2).sum()
    units = kept.unit_vectors()
    assert units is not None
    torch.testing.assert_close(units[0], cav / cav.norm())


def test_a_class_that_a_batch_lacks_keeps_its_direction() -> None:
    kept = BackgroundDirections(0.75)
    assert kept.unit_vectors() is None
    kept.update(torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    kept.update(torch.tensor([[0.0, 8.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    kept.update(torch.tensor([[8.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert kept.shifts is not None
    assert kept.shifts.tolist() == [[0.0, 8.0], [5.0, 0.0], [0.0, 0.0]]
    units = kept.unit_vectors()
    assert units is not None
    assert units.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
