"""Samples are drawn with seeds, so that worker processes change nothing."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from faster_isnet.data.seeded_sampling import SeededIndex, SeededSampler, seeded


class Noise(Dataset[Tensor]):
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Tensor:
        with seeded(index):
            return index + torch.rand(())


def epochs(workers: int) -> list[Tensor]:
    torch.manual_seed(0)
    loader = DataLoader(
        Noise(),
        3,
        sampler=SeededSampler(RandomSampler(Noise())),
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
    )
    drawn = []
    for _ in range(3):
        drawn.append(torch.cat(list(loader)))
        torch.rand(5)  # as dropout draws
    return drawn


def test_worker_processes_change_no_number() -> None:
    alone, with_two = epochs(0), epochs(2)
    torch.testing.assert_close(alone, with_two, rtol=0, atol=0)
    assert not torch.equal(alone[0].sort().values, alone[1].sort().values)


def test_each_sample_comes_once_with_a_seed_of_its_own() -> None:
    drawn = list(SeededSampler(RandomSampler(Noise())))
    assert sorted(drawn) == list(range(7))
    assert len({index.seed for index in drawn}) == 7


def test_a_seed_leaves_the_global_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with seeded(SeededIndex(0, seed=5)):
        first = torch.rand(1)
    with seeded(SeededIndex(9, seed=5)):
        assert torch.equal(torch.rand(1), first)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("index", [SeededIndex(3, seed=2**62 + 1)])
def test_an_index_goes_to_other_processes(index: SeededIndex) -> None:
    copy = pickle.loads(pickle.dumps(index))
    assert (copy, copy.seed, type(copy)) == (index, index.seed, SeededIndex)
