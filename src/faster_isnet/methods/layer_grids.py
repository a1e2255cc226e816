"""Find where in the image the values of a hidden layer lie, and put its relevance on that grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

PREFIX_TOKENS = "num_prefix_tokens"
"""Attribute of a module: how many of its first tokens have no place (timm's name for it)."""
OUTPUT_FORMAT = "output_fmt"
"""Attribute of a module: ``"NHWC"`` if its channels come last (timm's name for it)."""
_MOST_PREFIX_TOKENS = 5  # a class token and four registers


@dataclass(frozen=True)
class Places:
    """Say where the places of a layer's output ``[B, ...]`` are.

    Attributes
    ----------
    grid
        The layer's size: ``(h, w)`` for images ``(H, W)``.
    kind
        ``"channels-first"`` for outputs ``[B, C, h, w]``, ``"channels-last"`` for
        ``[B, h, w, C]``, ``"tokens"`` for ``[B, p + h·w, C]``.
    prefix
        p, the number of tokens without a place, which come first.
    """

    grid: tuple[int, ...]
    kind: str = "channels-first"
    prefix: int = 0

    def place(self, values: Tensor) -> Tensor:
        """Return values of the layer's shape, ``[B, K, ...]``, as ``[B, K, C, h, w]``."""
        if self.kind == "channels-last":
            return values.movedim(-1, 2)
        if self.kind == "tokens":
            placed = values[:, :, self.prefix :].transpose(2, 3)
            return placed.reshape(*placed.shape[:3], *self.grid)
        return values

    def put_back(self, placed: Tensor, values: Tensor) -> Tensor:
        """Return ``values`` with those replaced that have a place: the inverse of :meth:`place`."""
        if self.kind == "channels-last":
            return placed.movedim(2, -1)
        if self.kind == "tokens":
            tokens = placed.flatten(3).transpose(2, 3)
            return torch.cat([values[:, :, : self.prefix], tokens], 2)
        return placed


def on_grid(relevance: Tensor, images: Tensor, model: nn.Module, layer: str) -> Tensor:
    """Put the relevance of a hidden layer on the layer's grid.

    Tokens without a place (class, distillation and register tokens) are left out: they belong
    neither to the foreground nor to the background. Counted as background, the class token would be
    penalised for what it collects from the foreground. What they carry was collected from places,
    by attention in earlier blocks, and it is there that it is supervised. So a layer behind the
    last attention of a network that reads its class token alone has no relevance to supervise.

    Parameters
    ----------
    relevance
        ``[B, K, C, h, w]``, ``[B, K, h, w, C]`` (channels last) or ``[B, K, N, C]`` (N tokens, row
        by row behind those without a place), for images of two dimensions; of three likewise.
        The grid of tokens has exactly the proportions of the image. How many have no place need
        not be said if it is at most five (a class token and four registers), the places divide the
        image into equal patches, and nothing else fits.
    images
        ``[B, C_in, H, W]``.
    model
        The network. ``num_prefix_tokens`` of the layer or of a module around it says how many
        tokens have no place, ``output_fmt = "NHWC"`` that channels come last where sizes leave it
        open, as timm has it.
    layer
        The name of the layer.

    Returns
    -------
    Tensor
        ``[B, K, C, h, w]``; channels first is returned as it is, and so is what has another number
        of dimensions, which no mask fits.

    Raises
    ------
    ValueError
        If no grid has as many places as there are tokens, or several have; if the first dimension
        is not the batch's.

    Examples
    --------
    >>> import torch
    >>> tokens, images = torch.rand(2, 1, 1 + 4 * 6, 8), torch.rand(2, 3, 64, 96)
    >>> on_grid(tokens, images, nn.Identity(), "").shape
    torch.Size([2, 1, 8, 4, 6])
    """
    size, shape = tuple(images.shape[2:]), tuple(relevance.shape[2:])
    if len(size) < 2 or len(shape) not in (2, len(size) + 1):
        return relevance
    if len(relevance) != len(images):
        raise ValueError(
            f"layer {layer!r} returns {len(relevance)} x {list(shape)} for {len(images)} images: "
            "its first dimension is not the batch, so its places are not known; name other layers"
        )
    found = possible_places(shape, size, model, layer)
    if len(found) == 1:
        return found[0].place(relevance)
    pixels = " x ".join(map(str, size))
    if not found:
        raise ValueError(
            f"layer {layer!r} returns {list(shape)} for each image of {pixels}: no grid of patches "
            f"of the image has {shape[0]} tokens, nor up to {_MOST_PREFIX_TOKENS} fewer; set the "
            f"module's attribute {PREFIX_TOKENS} to the number of tokens without a place, give "
            "images of another size or name other layers"
        )
    raise ValueError(
        f"layer {layer!r} returns {list(shape)} for each image of {pixels}, which may be "
        + " or ".join(f"{p.prefix} tokens and a grid of {list(p.grid)}" for p in found)
        + f"; set the module's attribute {PREFIX_TOKENS} to the number of tokens without a place"
    )


def possible_places(
    shape: Sequence[int], size: Sequence[int], model: nn.Module, layer: str
) -> list[Places]:
    """Return the places that a layer's output of this shape can have, most often one.

    Parameters
    ----------
    shape
        Of the output for one image: ``(C, h, w)``, ``(h, w, C)`` or ``(N, C)``.
    size
        Of the image: ``(H, W)``.
    model, layer
        See :func:`on_grid`.
    """
    if size and len(shape) == len(size) + 1:
        return [_grid_with_channels(tuple(shape), size, model, layer)]
    if len(shape) != 2 or len(size) < 2:
        return []
    known = next(_attributes(model, layer, PREFIX_TOKENS), None)
    if isinstance(known, int) and (grid := _grid_of(shape[0] - known, size)):
        return [Places(grid, "tokens", known)]
    # A layer before they are added has none of them, so what is known is not all.
    grids = [(p, _grid_of(shape[0] - p, size)) for p in range(_MOST_PREFIX_TOKENS + 1)]
    return [Places(grid, "tokens", p) for p, grid in grids if grid and _divides(grid, size)]


def _grid_of(places: int, size: Sequence[int]) -> tuple[int, ...]:
    """Return the grid of so many places with exactly the proportions of the image, if any."""
    divisor = math.gcd(*size)
    unit = tuple(side // divisor for side in size)
    times = round((max(places, 0) / math.prod(unit)) ** (1 / len(size)))
    grid = tuple(times * side for side in unit)
    # A single place is no grid: everything would be foreground.
    return grid if places > 1 and math.prod(grid) == places else ()


def _divides(grid: Sequence[int], size: Sequence[int]) -> bool:
    return all(side % places == 0 for places, side in zip(grid, size, strict=True))


def _grid_with_channels(
    shape: tuple[int, ...], size: Sequence[int], model: nn.Module, layer: str
) -> Places:
    """Tell ``[C, h, w]`` from ``[h, w, C]``: the grid has the proportions of the image.

    Exactly, or else but for the rounding of a place. If both may be the grid, channels come first,
    as torch has it, unless the module is known for the other.
    """
    first, last = Places(shape[1:]), Places(shape[:-1], "channels-last")
    for tolerance in (0, max(size)):
        fits = [_fits(places.grid, size, tolerance) for places in (first, last)]
        if all(fits):
            return last if _has_channels_last(model, layer) else first
        if any(fits):
            return first if fits[0] else last
    return first


def _fits(grid: Sequence[int], size: Sequence[int], tolerance: int) -> bool:
    pairs = list(zip(grid, size, strict=True))
    small = all(places <= side for places, side in pairs)
    return small and all(abs(g * size[0] - grid[0] * side) <= tolerance for g, side in pairs)


def _has_channels_last(model: nn.Module, layer: str) -> bool:
    owners = _owners(model, layer)
    if any(isinstance(owner, torchvision.models.SwinTransformer) for owner in owners):
        return not isinstance(owners[0], nn.Conv2d | torchvision.ops.Permute)
    return next(_attributes(model, layer, OUTPUT_FORMAT), None) == "NHWC"


def _attributes(model: nn.Module, layer: str, name: str) -> Iterator[Any]:
    return (getattr(owner, name) for owner in _owners(model, layer) if hasattr(owner, name))


def _owners(model: nn.Module, layer: str) -> list[nn.Module]:
    """Return a module and those that it is in, from the inside out."""
    parts = layer.split(".") if layer else []
    return [model.get_submodule(".".join(parts[:number])) for number in range(len(parts), -1, -1)]
