"""Logits in the one form that losses and measures read: one for each class."""

from __future__ import annotations

import torch
from torch import Tensor


def class_logits(logits: Tensor, task: str = "multiclass") -> Tensor:
    """Return logits of two classes for a single logit, and all others as they are.

    A logit z of "yes" becomes (−z/2, z/2): their softmax is (sigmoid(−z), sigmoid(z)), and "no" is
    explained by what speaks against "yes".

    Parameters
    ----------
    logits
        ``[B]``, ``[B, 1]`` or ``[B, C]``.
    task
        For ``"multilabel"`` a single logit stays one, ``[B, 1]``: it is the one class's own.

    Returns
    -------
    Tensor
        ``[B, 2]``, or ``[B, C]``.

    Examples
    --------
    >>> class_logits(torch.tensor([[2.0], [-1.0]]))
    tensor([[-1.0000,  1.0000],
            [ 0.5000, -0.5000]])
    """
    if logits.dim() == 1:
        logits = logits.unsqueeze(1)
    if logits.dim() != 2 or logits.shape[1] != 1 or task == "multilabel":
        return logits
    return torch.cat([-logits / 2, logits / 2], 1)
