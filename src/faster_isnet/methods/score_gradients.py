"""Differentiate scores of a network, for losses that are made of the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Have attention computed by functions that have a second derivative, inside the block.

    The fused kernels of ``F.scaled_dot_product_attention`` have none.

    Examples
    --------
    >>> x = torch.rand(1, 1, 3, 4, requires_grad=True)
    >>> with twice_differentiable():
    ...     y = torch.nn.functional.scaled_dot_product_attention(x, x, x).square()
    >>> score_gradient(y, x).sum().backward()
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


def score_gradient(scores: Tensor, values: Tensor) -> Tensor:
    """Return the gradient of the sum of scores, which can be differentiated once more.

    Samples do not share values, so that of a sum over the batch is each sample's own. Where batch
    norm is in training mode, the gradient goes through the statistics of the batch as well.

    Parameters
    ----------
    scores
        Of any shape.
    values
        What the scores depend on: images or the output of a layer.

    Returns
    -------
    Tensor
        Of the shape of ``values``.

    Raises
    ------
    ValueError
        If the scores do not depend on the values, or not differentiably.

    Examples
    --------
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> gradient = score_gradient(x**3, x)
    >>> gradient.detach()
    tensor([ 3., 12.])
    >>> gradient.sum().backward()
    >>> x.grad
    tensor([ 6., 12.])
    """
    found = None
    if scores.requires_grad:
        (found,) = torch.autograd.grad(scores.sum(), values, create_graph=True, allow_unused=True)
    if found is None:
        raise ValueError(
            "the network's logits have no gradient with respect to the images or the layer that "
            "this method explains; look for torch.no_grad(), detach() or torch.inference_mode() in "
            "its forward pass, or name another layer"
        )
    return found
