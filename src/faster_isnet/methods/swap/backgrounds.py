"""Swap the backgrounds of images, so that they give no class away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from faster_isnet.common.checks import check_choice, check_masks, check_range
from faster_isnet.common.interpolation import LINEAR
from faster_isnet.methods.batch_draws import by_image, shuffled_within
from faster_isnet.methods.swap.generated import generated_backgrounds
from faster_isnet.methods.swap.inpainting import inpaint
from faster_isnet.methods.swap.pool import BackgroundPool

FILLS = ("blur", "inpaint", "image")
"""What replaces the foreground of an image that lends its background."""
SWAPPED, GENERATED = 1.0, 0.5
"""Of how many training images the background is swapped, and how many of those are generated:
chosen in ``docs/results/recipe.md``."""
PLAIN = 0.25
"""How many of the swapped backgrounds are smoothed: chosen in ``docs/results/attention.md``."""
_CELLS = 8
_POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def swapping_summary(share: float, generated: float) -> str:
    """Return in words what :func:`swap_backgrounds` does to training images.

    Examples
    --------
    >>> swapping_summary(1.0, 0.0)
    "backgrounds are replaced in 100% of the images with a mask: another image's"
    """
    if not share:
        return ""
    kinds = "another image's"
    if generated:
        kinds = f"one colour or noise for {generated:.0%} of them, another image's for the rest"
    return f"backgrounds are replaced in {share:.0%} of the images with a mask: {kinds}"


def swap_backgrounds(
    images: Tensor,
    masks: Tensor | None,
    share: float,
    plain: float = PLAIN,
    fill: str = "blur",
    pool: BackgroundPool | None = None,
    generated: float = 0.0,
) -> Tensor:
    """Give images the backgrounds of others, in random order.

    Of whatever class, and an image's own as often as that of any other: so a background says
    nothing of the class. If all of a batch had another one's, it would say which class it is not,
    and small networks with batch norm, which compares the images of a batch, learnt that in
    batches of two and of four.

    Parameters
    ----------
    images
        ``[B, C, ...]``, with one to three spatial dimensions.
    masks
        ``[B, 1, ...]`` or ``[B, ...]``: 1 in the foreground, 0 in the background,
        :data:`~faster_isnet.NO_MASK` everywhere for an image without a mask, which stays as it is
        and lends no background, as one without background does not. ``None`` if no image has one.
    share
        In [0, 1], of the images that are given a background; each is drawn by itself. Of n
        images that lend theirs, one in n is given its own.
    plain
        In [0, 1], of the swapped backgrounds that are smooth: the mean of each cell of an 8 × 8
        grid, interpolated. A quarter by default: a network that sees nothing but backgrounds
        of the training images is worse before a plain one.
    fill
        What replaces the foreground of the image that lends its background: ``"blur"``, its
        background continued smoothly (as above), or ``"inpaint"``, by
        :func:`~faster_isnet.methods.swap.inpainting.inpaint`, or ``"image"``: the same place of a
        background drawn for it likewise, continued smoothly where that is foreground as well.
    pool
        Backgrounds of earlier batches, of which one is drawn for each image; those of this batch
        are added to them. ``None``, or an empty pool, for the backgrounds of the batch.
    generated
        In [0, 1], of the swapped backgrounds that are no image's, but those of
        :func:`~faster_isnet.methods.swap.generated.generated_backgrounds`; ``plain`` is of the
        others. So a network meets backgrounds of kinds that the training images do not have.

    Returns
    -------
    Tensor
        ``[B, C, ...]``; values stay within those of the images. Foregrounds are unchanged, exactly.

    Raises
    ------
    TypeError, ValueError
        If masks have another size than the images, are not binary or have no foreground; if an
        option is not one of those above.
    ImportError
        If OpenCV is not installed, with ``fill="inpaint"``.

    Examples
    --------
    >>> images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 1, 2)
    >>> masks = torch.tensor([1.0, 0.0]).expand(4, 1, 1, 2)
    >>> _ = torch.manual_seed(0)
    >>> swap_backgrounds(images, masks, 1.0).squeeze()
    tensor([[0., 2.],
            [1., 3.],
            [2., 0.],
            [3., 1.]])
    """
    check_choice("fill", fill, FILLS)
    for name, value in (("share", share), ("plain", plain), ("generated", generated)):
        check_range(name, value, 0, 1)
    if masks is None or share == 0:
        return images
    masks, has_mask = check_masks(masks, images.unsqueeze(1))
    if masks is None:
        return images
    lends = has_mask & (masks == 0).flatten(1).any(1)

    def lent(backgrounds: Tensor) -> Tensor:
        ours = backgrounds[shuffled_within(lends)]
        return ours if pool is None else pool.draw(ours)

    foreground, smoothed = masks == 1, _smoothed(images, masks)
    chosen, smooth = (
        by_image((torch.rand(len(images)) < each).to(images.device), images)
        for each in (share, plain)
    )
    filling = smoothed
    if fill == "inpaint":
        filling = inpaint(images, foreground & by_image(lends, images) & ~smooth)
    elif fill == "image":
        filling = lent(torch.where(foreground, smoothed, images))
    backgrounds = torch.where(foreground, filling, images)
    backgrounds = torch.where(smooth, smoothed, backgrounds)
    given = chosen & by_image(lends, images) & ~foreground
    new = lent(backgrounds)
    if generated:
        others = by_image((torch.rand(len(images)) < generated).to(images.device), images)
        new = torch.where(others, generated_backgrounds(images), new)
    swapped = torch.where(given, new, images)
    if pool is not None:
        pool.add(backgrounds, lends)
    return swapped


def _smoothed(images: Tensor, masks: Tensor) -> Tensor:
    """Return the means of the background in each cell of a grid, interpolated."""
    outside = (masks != 1).to(images)
    size, dims = images.shape[2:], images.dim() - 2
    known = _POOLS[dims](outside, _CELLS)
    values = _POOLS[dims](images * outside, _CELLS)
    known, values = (_resized(each, size, LINEAR[dims]) for each in (known, values))
    spatial = tuple(range(2, images.dim()))
    total = outside.sum(spatial, keepdim=True).clamp(min=1)
    mean = (images * outside).sum(spatial, keepdim=True) / total
    reached = known > torch.finfo(images.dtype).eps
    return torch.where(reached, values / known.where(reached, 1), mean)


def _resized(values: Tensor, size: torch.Size, mode: str) -> Tensor:
    return F.interpolate(values, size, mode=mode, align_corners=False)
