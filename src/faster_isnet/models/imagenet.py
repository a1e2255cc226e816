"""Name the classes of ImageNet."""

from __future__ import annotations

from collections import Counter

from torchvision.models import ResNet18_Weights

IMAGENET = "imagenet"


def imagenet_names() -> list[str]:
    """Return the 1,000 names, by index; those that two classes share have the index as well.

    Examples
    --------
    >>> names = imagenet_names()
    >>> names[323], len(set(names))
    ('monarch', 1000)
    """
    names = ResNet18_Weights.DEFAULT.meta["categories"]
    count = Counter(names)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(names)]
