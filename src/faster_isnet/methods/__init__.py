"""How a classifier is trained with masks: one file or folder for each method.

What all methods share is in :mod:`~faster_isnet.methods.base`; the training itself is in
:mod:`faster_isnet.training`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from faster_isnet.common.batch import Batch
from faster_isnet.methods.base import Losses, Method
from faster_isnet.methods.classification_loss import ClassificationLoss
from faster_isnet.methods.gain import GAIN
from faster_isnet.methods.group_dro import GroupDRO
from faster_isnet.methods.isnet.method import ISNetMethod
from faster_isnet.methods.last_layer.method import LastLayer
from faster_isnet.methods.masked import Masked
from faster_isnet.methods.mixing import Mixing
from faster_isnet.methods.multitask_unet import MultiTaskUNet
from faster_isnet.methods.rr_clarc.method import RRClArC
from faster_isnet.methods.rrr import RightReasons
from faster_isnet.methods.segment_classify import SegmentClassify
from faster_isnet.methods.standard import Standard
from faster_isnet.methods.swap.backgrounds import swap_backgrounds
from faster_isnet.methods.swap.method import Swap

__all__ = [
    "GAIN",
    "Batch",
    "ClassificationLoss",
    "GroupDRO",
    "ISNetMethod",
    "LastLayer",
    "Losses",
    "Masked",
    "Method",
    "Mixing",
    "MultiTaskUNet",
    "RRClArC",
    "RightReasons",
    "SegmentClassify",
    "Standard",
    "Swap",
    "method_names",
    "swap_backgrounds",
]


def method_names() -> dict[str, type[Method]]:
    """Return the methods of this package by the names that the command line has for them.

    A method is found where a file or folder of this package defines a subclass of
    :class:`Method` with a :attr:`~Method.name`.

    Examples
    --------
    >>> method_names()["standard"].__name__
    'Standard'
    """
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        import_module(module.name)
    found, waiting = {}, [Method]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.name is not None and kind.__module__.startswith(f"{__name__}."):
            found[kind.name] = kind
    return found
