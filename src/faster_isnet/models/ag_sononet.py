"""Build the attention-gated Sononet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from faster_isnet.common.precision import at_least_float32

_UNIFORM = 1e-6  # makes the weights of a map of equal scores equal, where they would be 0 / 0


class GridAttention(nn.Module):
    """Weigh the places of feature maps by how well they go with deeper ones.

    A place x of the maps and g of the deeper maps, enlarged to their size, have the score
    ψ · ReLU(Θ x + Φ g). The weights are the scores above their minimum, divided by their sum. The
    paper prefers this to a softmax, which selects too few places, and to a sigmoid, whose weights
    are all alike.

    Parameters
    ----------
    channels
        Of the maps that are weighed.
    gating_channels
        Of the deeper maps. The score is computed with as many channels.
    """

    def __init__(self, channels: int, gating_channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, gating_channels, 1, bias=False)
        self.phi = nn.Conv2d(gating_channels, gating_channels, 1, bias=False)
        self.psi = nn.Conv2d(gating_channels, 1, 1, bias=False)  # a bias would be subtracted again

    def forward(self, maps: Tensor, gating: Tensor) -> Tensor:
        """Return the weights of the places, which are ≥ 0 and have the sum 1.

        Parameters
        ----------
        maps
            ``[B, C, h, w]``.
        gating
            ``[B, gating channels, h', w']``, the deeper maps.

        Returns
        -------
        Tensor
            ``[B, 1, h, w]``.
        """
        gates = F.interpolate(self.phi(gating), maps.shape[2:], mode="bilinear")
        scores = at_least_float32(self.psi(F.relu(self.theta(maps) + gates)))
        above = scores - scores.amin((2, 3), keepdim=True) + _UNIFORM
        return above / above.sum((2, 3), keepdim=True)


class AGSononet(nn.Module):
    """Classify images by what attention finds at two depths, and by the deepest features.

    Sononet is a VGG of 13 convolutions with batch norm. The third and the fourth of its five stages
    have an attention gate each, which the fifth steers: their maps are summed over all places, as
    the gate weighs these. One linear layer reads both sums and the mean of the fifth stage
    (aggregation by concatenation). No mask is used: what is attended to is learnt from the labels.

    In the paper further variants have a classifier at each depth: with a loss for each of them
    (deep supervision), averaged, or read by a further layer that is trained afterwards. They need
    training losses of their own. Averaged logits of linear classifiers are this network's, with
    other weights.

    Parameters
    ----------
    classes
        Number of logits.
    width
        Of the first stage. The others have 2, 4, 8 and 8 times as many channels. The paper has 8,
        16 and 32.

    References
    ----------
    Schlemper et al., "Attention gated networks: learning to leverage salient regions in medical
    images", Medical Image Analysis 53, 2019 (AG-Sononet-8, -16 and -32). Initial weights are those
    of the code that the authors published.

    Examples
    --------
    >>> AGSononet(classes=3, width=8)(torch.rand(2, 3, 64, 48)).shape
    torch.Size([2, 3])
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        one, two, three, four = (width * factor for factor in (1, 2, 4, 8))
        self.stage1 = _stage(3, one, 3)
        self.stage2 = _stage(one, two, 3)
        self.stage3 = _stage(two, three, 3)
        self.stage4 = _stage(three, four, 2)
        self.stage5 = _stage(four, four, 2)
        self.pool = nn.MaxPool2d(2)
        self.attention3 = GridAttention(three, four)
        self.attention4 = GridAttention(four, four)
        self.classifier = nn.Linear(three + four + four, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of images ``[B, 3, H, W]``, of at least 16 x 16."""
        third = self.stage3(self.pool(self.stage2(self.pool(self.stage1(images)))))
        fourth = self.stage4(self.pool(third))
        fifth = self.stage5(self.pool(fourth))
        weighed = [
            (maps * attention(maps, fifth)).sum((2, 3))
            for maps, attention in ((third, self.attention3), (fourth, self.attention4))
        ]
        logits: Tensor = self.classifier(torch.cat([*weighed, fifth.mean((2, 3))], 1))
        return logits


def _stage(channels: int, width: int, convolutions: int) -> nn.Sequential:
    inputs = (channels, *(width,) * (convolutions - 1))
    return nn.Sequential(*(Conv2dNormActivation(each, width) for each in inputs))
