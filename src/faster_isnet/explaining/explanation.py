"""What an Explainer returns: logits and relevance, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a model said about a batch, and why.

    Attributes
    ----------
    logits
        ``[B, C]``, the model's output; ``[B, 1]`` or ``[B]`` if it has a single logit.
    heatmap
        ``[B, K, *images.shape[1:]]``: the relevance of each input element, K heatmaps a sample.
        Positive where it speaks for the explained quantity, in that quantity's units.
    layers
        For each hidden layer asked for, its relevance ``[B, K, *output.shape[1:]]``.
    quantity
        ``[B, K]``, what was explained. Its sum is the relevance that went in; with ε → 0 and no
        biases each heatmap sums to it.
    """

    logits: Tensor
    heatmap: Tensor
    layers: Mapping[str, Tensor]
    quantity: Tensor

    def __repr__(self) -> str:
        """Say what there is, by shape."""
        layers = "".join(f", {name}: {list(r.shape)}" for name, r in self.layers.items())
        return (
            f"Explanation(logits: {list(self.logits.shape)}, heatmap: {list(self.heatmap.shape)}"
            f"{layers})"
        )

    def plot(
        self,
        images: Tensor,
        masks: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        task: str = "multiclass",
        most: int = 8,
    ) -> Figure:
        """Draw the images beside their heatmaps.

        Parameters
        ----------
        images, masks, class_names, task, most
            See :func:`~faster_isnet.explaining.pictures.explanation_plot`.

        Returns
        -------
        matplotlib.figure.Figure
            To change, or to save: ``.savefig("heatmaps.png")``.

        Raises
        ------
        ValueError
            If they do not fit the explanation.
        """
        from faster_isnet.explaining.pictures import explanation_plot  # matplotlib is heavy

        return explanation_plot(self.logits, self.heatmap, images, masks, class_names, task, most)

    def show(self, images: Tensor, **options: Any) -> Image.Image:
        """Return what :meth:`plot` draws as a picture, which a notebook displays.

        Parameters
        ----------
        images, **options
            As of :meth:`plot`.

        Returns
        -------
        PIL.Image.Image
            Outside of a notebook its ``.show()`` opens it.

        Examples
        --------
        >>> import torch
        >>> from faster_isnet import Explainer
        >>> images = torch.rand(2, 1, 8, 8)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> picture = Explainer(model)(images).show(images, class_names=["a", "b", "c"])
        >>> picture.format
        'PNG'
        """
        buffer = BytesIO()
        self.plot(images, **options).savefig(buffer, format="png")
        return Image.open(buffer)
