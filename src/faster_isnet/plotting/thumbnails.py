"""Draw small pictures with the outlines of their masks, many of them in a short time."""

from __future__ import annotations

from io import BytesIO

from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from torch import Tensor
from torch.nn import functional as F

from faster_isnet.plotting.pictures import check_image, check_mask

_QUALITY = 80


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
    check_image(image)
    check_mask(mask, image.shape[1:])
    scale = side / max(image.shape[1:])
    size = [max(1, round(length * scale)) for length in image.shape[1:]]
    small = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
    inside = F.interpolate(mask[None], size, mode="nearest-exact")[0, 0].numpy() == 1
    pixels = small.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).mul(255).byte().numpy().copy()
    # Where the mask meets the border of the picture, its outline is there, too.
    pixels[binary_dilation(inside) & ~inside] = (0, 0, 0)
    pixels[inside & ~binary_erosion(inside)] = (255, 214, 0)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
