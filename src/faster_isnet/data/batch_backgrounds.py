"""Replace the backgrounds of batches, where the images are, without reading them again."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import check_masks
from faster_isnet.data.backgrounds import OTHER, blurred_backgrounds

_KEPT, _KEPT_OF_A_LABEL = 64, 8  # backgrounds of earlier batches


class BatchBackgrounds:
    """Replace the backgrounds of one batch after another, by each of :data:`BACKGROUNDS`.

    The kinds are those of :class:`~faster_isnet.data.backgrounds.ReplacedBackground`: the same
    background, blurred; uniform noise, the same in all channels; black; and the background of an
    image with another label. The last comes from this batch or an earlier one, of which a few are
    kept. Loaders are often sorted by class: as many images as the first batch has wait for one with
    another label, and more that come before any are left out of this kind.

    Noise and black are of the range [0, 1], widened to that of the batch's images in each channel,
    so that normalised images have a black of their own. Random values depend on the seed and the
    batch alone; the state of PyTorch's own generator is left as it is.

    Examples
    --------
    >>> masks = torch.tensor([1.0, 0.0]).expand(2, 1, 1, 2)
    >>> images = torch.tensor([0.2, 0.4]).reshape(2, 1, 1, 1).expand(2, 1, 1, 2)
    >>> batch = Batch(images, torch.tensor([0, 1]), masks)
    >>> replaced = dict(BatchBackgrounds().replaced(batch, seed=0))
    >>> list(replaced)
    ['blur', 'noise', 'zeros', 'other image']
    >>> replaced["other image"].images.squeeze()
    tensor([[0.2000, 0.4000],
            [0.4000, 0.2000]])
    """

    def __init__(self) -> None:
        self._kept: Batch | None = None  # backgrounds, and whose label they have
        self._waiting: Batch | None = None

    def replaced(self, batch: Batch, seed: int) -> Iterator[tuple[str, Batch]]:
        """Yield the kind of each new background, and images, labels and masks with it.

        Parameters
        ----------
        batch
            Images, labels and masks; images without a mask are left out.
        seed
            Of this batch's noise and other images.

        Raises
        ------
        TypeError, ValueError
            If masks have another size than the images, or, in host memory, are not binary or have
            no foreground.
        """
        masks, has_mask = check_masks(batch.masks, batch.images.unsqueeze(1))
        if masks is None or not bool(has_mask.any()):
            return
        chosen = Batch(batch.images, batch.needed("labels"), masks)
        chosen = chosen.select(has_mask.nonzero().flatten())
        images = chosen.images
        rng = torch.Generator().manual_seed(seed)
        blurred = blurred_backgrounds(images, chosen.needed("masks"))
        yield "blur", _with_backgrounds(chosen, blurred)
        channel = (0, *range(2, images.dim()))
        low = images.amin(channel, keepdim=True).clamp(max=0)
        high = images.amax(channel, keepdim=True).clamp(min=1)
        noise = torch.rand((len(images), 1, *images.shape[2:]), generator=rng).to(images)
        yield "noise", _with_backgrounds(chosen, low + noise * (high - low))
        yield "zeros", _with_backgrounds(chosen, low.expand_as(images))
        other = self._with_others(chosen, blurred, rng)
        if len(other.images):
            yield OTHER, other

    def _with_others(self, batch: Batch, blurred: Tensor, rng: torch.Generator) -> Batch:
        """Return the images, waiting ones included, for which there is one of another label."""
        masks = batch.needed("masks")
        lends = (masks == 0).flatten(1).any(1).nonzero().flatten()
        backgrounds = torch.where(masks == 1, blurred, batch.images)
        donors = _joined(self._kept, batch._replace(images=backgrounds).select(lends))
        asking = _joined(self._waiting, batch)
        differs = ~_same_labels(asking, donors)
        found = differs.any(1)
        self._waiting = asking.select((~found).nonzero().flatten()[: len(batch.images)])
        self._kept = _recent(donors)
        if not bool(found.any()):
            return asking.select(found.nonzero().flatten())
        drawn = torch.rand(differs.shape, generator=rng).to(differs.device)
        whose = torch.where(differs, drawn, -1).argmax(1)[found]
        given = asking.select(found.nonzero().flatten())
        return _with_backgrounds(given, donors.images[whose])


def _with_backgrounds(batch: Batch, backgrounds: Tensor) -> Batch:
    foreground = batch.needed("masks") == 1
    return batch._replace(images=torch.where(foreground, batch.images, backgrounds))


def _joined(earlier: Batch | None, batch: Batch) -> Batch:
    """Return both in one batch; those of another size are dropped."""
    if earlier is None or earlier.images.shape[1:] != batch.images.shape[1:]:
        return batch
    return Batch(*(torch.cat(parts) for parts in zip(earlier[:3], batch[:3], strict=True)))  # type: ignore[arg-type]


def _same_labels(first: Batch, second: Batch) -> Tensor:
    """Return whether each of the first has the label of each of the second, ``[N, M]``."""
    one, other = (each.needed("labels") for each in (first, second))
    same = one[:, None] == other[None]
    return same if same.dim() == 2 else same.all(2)


def _recent(donors: Batch) -> Batch:
    """Return the latest, of each label and of all."""
    later = _same_labels(donors, donors).triu(1).sum(1)
    return donors.select((later < _KEPT_OF_A_LABEL).nonzero().flatten()[-_KEPT:])
