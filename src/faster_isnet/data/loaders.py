"""Make batches of images, in an order that a seed repeats, balanced by class or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, WeightedRandomSampler

from faster_isnet.data.dataset import Item
from faster_isnet.data.samples import Sample, classes_of
from faster_isnet.data.seeded_sampling import SeededSampler


def image_loader(
    dataset: Dataset[Item],
    batch_size: int,
    workers: int,
    sampler: Sampler[int] | None = None,
    *,
    drop_last: bool = False,
) -> DataLoader[Item]:
    """Return a loader of batches ``(images, labels, masks)``, with attributes if items have them.

    Parameters
    ----------
    dataset
        The images.
    batch_size
        Images in a batch, ≥ 1.
    workers
        Number of processes that load, which changes no batch; 0 loads in the main process.
    sampler
        Draws the indices, each of which gets a seed for its augmentation; ``None`` for all, in
        order.
    drop_last
        Leave out a last batch that is not full.
    """
    return DataLoader(
        dataset,
        batch_size,
        sampler=None if sampler is None else SeededSampler(sampler),
        num_workers=workers,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        # For the seeds of workers: of the global one, more is drawn without workers than with.
        generator=torch.Generator(),
    )


def class_counts(samples: Sequence[Sample], classes: int) -> Tensor:
    """Count the samples of each class, ``[classes]``."""
    counts = Counter(each for sample in samples for each in classes_of(sample))
    return torch.tensor([float(counts[each]) for each in range(classes)])


def balancing_sampler(samples: Sequence[Sample]) -> WeightedRandomSampler:
    """Sample with weights by rarest class; samples without a class count as a class."""
    classes = [classes_of(sample) or [-1] for sample in samples]
    counts = Counter(each for of_sample in classes for each in of_sample)
    weights = [max(1 / counts[each] for each in of_sample) for of_sample in classes]
    return WeightedRandomSampler(weights, len(samples))
