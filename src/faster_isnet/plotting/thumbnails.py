"""Draw small pictures, with the outlines of their masks or without, in a short time."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor
from torch.nn import functional as F

from faster_isnet.plotting.pictures import check_image, check_mask

_QUALITY = 80


def thumbnail(image: Tensor, side: int = 200) -> bytes:
    """Return a small picture as the bytes of a JPEG file, see :func:`outlined_thumbnail`."""
    return _jpeg(_small(image, side))


def outlined_thumbnail(image: Tensor, mask: Tensor, side: int = 200) -> bytes:
    """Return a small picture with the outline of its mask as the bytes of a JPEG file.

    The outline is black outside and yellow inside, so that it is seen on dark and light alike.

    Parameters
    ----------
    image
        ``[1|3, H, W]`` in [0, 1].
    mask
        ``[1, H, W]`` in {0, 1}.
    side
        Longest side of the thumbnail in pixels. Smaller pictures are not made larger than this.

    Raises
    ------
    ValueError
        If image or mask are not as said.

    Examples
    --------
    >>> import torch
    >>> outlined_thumbnail(torch.zeros(1, 8, 6), torch.ones(1, 8, 6))[6:10]
    b'JFIF'
    """
    pixels = _small(image, side)
    check_mask(mask, image.shape[1:])
    inside = F.interpolate(mask[None], pixels.shape[:2], mode="nearest-exact")[0, 0].numpy() == 1
    # Where the mask meets the border of the picture, its outline is there, too.
    pixels[binary_dilation(inside) & ~inside] = (0, 0, 0)
    pixels[inside & ~binary_erosion(inside)] = (255, 214, 0)
    return _jpeg(pixels)


def _small(image: Tensor, side: int) -> npt.NDArray[np.uint8]:
    """Return the pixels ``[H, W, 3]`` of a picture whose longest side is ``side``."""
    check_image(image)
    scale = side / max(image.shape[1:])
    size = [max(1, round(length * scale)) for length in image.shape[1:]]
    small = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
    bytes_of = small.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).mul(255).byte()
    pixels: npt.NDArray[np.uint8] = bytes_of.numpy().copy()
    return pixels


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
