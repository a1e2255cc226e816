"""Draw images and heatmaps as figures.

Every function makes its own :class:`matplotlib.figure.Figure` or draws into the axes it is given;
pyplot, with its global list of open figures, is never imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from math import floor, log10
from textwrap import fill

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from faster_isnet.plotting.pictures import check_image, check_mask, check_tensor

RELEVANCE_COLOURS = "RdBu_r"  # red and blue stay apart in every common colour blindness
QUANTILE = 0.995  # of |R|: what gets the strongest colour
_KNOWN = {"standard": "Standard", "isnet": "ISNet"}
# Okabe and Ito's colour-blind-safe palette, the ones that stand out on white.
_PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#000000")


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal.

    Examples
    --------
    >>> percent(0.975)
    '97.5 %'
    """
    return f"{100 * fraction:.1f} %"


def display_name(model: str) -> str:
    """Return how a model is called in figures and tables (``"isnet"``: ``"ISNet"``)."""
    return _KNOWN.get(model, model)


def class_name(class_names: Sequence[str], index: int) -> str:
    """Return the name of class ``index``; raise ``ValueError`` if it has none."""
    if not 0 <= index < len(class_names):
        raise ValueError(f"class {index} has no name: class_names has {len(class_names)} entries")
    return class_names[index]


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """Return one colour per model, in order; the two of the demo always have the same ones.

    Examples
    --------
    >>> model_colours(["isnet", "rrr"])
    {'isnet': '#0072b2', 'rrr': '#009e73'}
    """
    fixed = dict(zip(_KNOWN, _PALETTE, strict=False))
    free = _PALETTE[len(fixed) :]
    others = [model for model in models if model not in fixed]
    return {model: fixed.get(model) or free[others.index(model) % len(free)] for model in models}


def _array(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().to("cpu", torch.float64).numpy()


def relevance_limit(relevance: npt.NDArray[np.float64], quantile: float = QUANTILE) -> float:
    """Return the v > 0 of the colour range [-v, v]: a quantile of ``|relevance|``.

    A little below the maximum, so that one extreme pixel does not make all others pale.

    Examples
    --------
    >>> relevance_limit(np.array([-4.0, 0.0, 2.0]), quantile=1.0)
    4.0
    """
    size = np.abs(relevance)
    # Where nearly all is zero the quantile is too, but the few pixels left must still show.
    return float(np.quantile(size, quantile) or size.max() or 1.0)


def draw_heatmap(
    axes: Axes,
    heatmap: Tensor,
    *,
    image: Tensor | None = None,
    mask: Tensor | None = None,
) -> AxesImage:
    """Draw relevance, summed over channels, in colours centred on zero.

    Parameters
    ----------
    axes
        Where to draw.
    heatmap
        Relevance, shape ``[C, H, W]``.
    image
        Picture to show faintly beneath, shape ``[1, H, W]`` or ``[3, H, W]`` in [0, 1].
    mask
        Foreground to outline, shape ``[1, H, W]`` in {0, 1}.

    Returns
    -------
    AxesImage
        The coloured relevance, e.g. for a colour bar.

    Raises
    ------
    ValueError
        If shapes or sizes do not fit, or values are not finite or out of range.
    """
    check_tensor("heatmap", heatmap)
    size = heatmap.shape[1:]
    relevance = _array(heatmap).sum(axis=0)
    limit = relevance_limit(relevance)
    drawn = axes.imshow(relevance, cmap=RELEVANCE_COLOURS, vmin=-limit, vmax=limit)
    if image is not None:
        check_image(image, size=size)
        grey = np.clip(_array(image), 0, 1).mean(axis=0)
        # The picture is a thin black veil over the colours, so that zero stays (nearly) white;
        # a dark picture is inverted, for its large dark part would dull them all.
        veil = grey if np.median(grey) < 0.5 else 1 - grey
        axes.imshow(np.zeros_like(veil), cmap="gray", vmin=0, vmax=1, alpha=0.16 * veil)
    if mask is not None:
        check_mask(mask, size)
        _outline(axes, mask)
    axes.set_axis_off()
    return drawn


def draw_image(axes: Axes, image: Tensor, mask: Tensor | None = None) -> None:
    """Draw a picture, shape ``[1|3, H, W]`` in [0, 1], with the outline of its mask."""
    check_image(image)
    pixels = np.clip(_array(image), 0, 1).transpose(1, 2, 0)
    axes.imshow(pixels.repeat(3 // pixels.shape[2], axis=2))
    if mask is not None:
        check_mask(mask, image.shape[1:])
        _outline(axes, mask)
    axes.set_axis_off()


def _outline(axes: Axes, mask: Tensor) -> None:
    # A ring of zeros around the mask closes the outline of a foreground that meets the border.
    padded = np.pad(_array(mask)[0], 1)
    height, width = padded.shape
    columns, rows = np.arange(width) - 1, np.arange(height) - 1
    if not padded.any():
        return
    for colour, linewidth in (("white", 2.4), ("black", 1.0)):  # seen on dark and on light alike
        axes.contour(columns, rows, padded, levels=[0.5], colors=colour, linewidths=linewidth)
    axes.set(xlim=(-0.5, width - 2.5), ylim=(height - 2.5, -0.5))


def image_figure(image: Tensor, mask: Tensor | None = None) -> Figure:
    """Return the bare picture of :func:`draw_image`."""
    figure, axes = _bare_figure(image)
    draw_image(axes, image, mask)
    return figure


def heatmap_figure(image: Tensor, heatmap: Tensor, mask: Tensor | None = None) -> Figure:
    """Return the bare heatmap over its image, see :func:`draw_heatmap`.

    Examples
    --------
    >>> figure = heatmap_figure(torch.zeros(1, 8, 8), torch.randn(3, 8, 8))
    >>> figure.savefig("heatmap.png")  # doctest: +SKIP
    """
    figure, axes = _bare_figure(image)
    draw_heatmap(axes, heatmap, image=image, mask=mask)
    return figure


def explanation_figure(
    image: Tensor, heatmap: Tensor, mask: Tensor | None = None, *, name: str, title: str
) -> Figure:
    """Return an image, and beside it its heatmap with a scale; as in :func:`draw_heatmap`.

    Parameters
    ----------
    image
        Shape ``[1, H, W]`` or ``[3, H, W]`` in [0, 1].
    heatmap
        Relevance, shape ``[C, H, W]``.
    mask
        Foreground to outline in both, shape ``[1, H, W]`` in {0, 1}.
    name
        What to write above the image.
    title
        What to write above the heatmap.

    Examples
    --------
    >>> figure = explanation_figure(
    ...     torch.zeros(1, 8, 8), 1e-6 * torch.ones(3, 8, 8), name="a.png", title="covid"
    ... )
    >>> figure.axes[2].get_ylabel()
    'relevance / $10^{-6}$'
    """
    check_image(image)
    height, width = image.shape[1:]
    texts = [fill(text, 34) for text in (name, title)]
    # In inches, since a layout engine takes as long again as all of the drawing.
    panel, above = 2.8, 0.17 * max(text.count("\n") + 1 for text in texts) + 0.15
    tall = float(np.clip(panel * height / width, 1.4, 2 * panel))
    figure = Figure(figsize=(2 * panel + 1.2, tall + above + 0.15), dpi=140)
    left, right, scale = (
        _axes_at(figure, start, 0.15, wide, tall)
        for start, wide in ((0.1, panel), (panel + 0.2, panel), (2 * panel + 0.3, 0.12))
    )
    draw_image(left, image, mask)
    drawn = draw_heatmap(right, heatmap, image=image, mask=mask)
    for axes, text in zip((left, right), texts, strict=True):
        axes.set_title(text, y=1, fontsize=9, parse_math=False)
    _, limit = drawn.get_clim()
    exponent = 0 if 0.1 <= limit < 1000 else floor(log10(limit))
    figure.colorbar(
        drawn,
        cax=scale,
        extend="both",
        format=lambda value, _: f"{value / 10**exponent:g}",
        label=f"relevance / $10^{{{exponent}}}$" if exponent else "relevance",
    )
    return figure


def _axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def new_figure(width: float, height: float, dpi: float = 140) -> Figure:
    """Return an empty figure of so many inches, whose parts make room for each other."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    return Figure(figsize=(width, height), dpi=dpi, layout=layout)


def png(figure: Figure, dpi: float | None = None) -> bytes:
    """Return the figure as the bytes of a PNG file, by default at its own resolution."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi="figure" if dpi is None else dpi)
    return buffer.getvalue()


def _bare_figure(image: Tensor) -> tuple[Figure, Axes]:
    check_image(image)
    height, width = image.shape[1:]
    figure = Figure(
        figsize=(2.4, 2.4 * height / width),
        dpi=140,
        layout=ConstrainedLayoutEngine(w_pad=0, h_pad=0),
    )
    return figure, figure.subplots()
