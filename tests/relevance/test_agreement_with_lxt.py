"""The rules of attention are those of LXT, the library of AttnLRP's authors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from faster_isnet import Explainer
from faster_isnet.benchmark.lxt_transformer import LxtTransformer
from faster_isnet.relevance import written_out

# LXT declares dependencies of hundreds of MB (transformers, bitsandbytes, …) that it does not need
# here. `make test` installs it without them, which no extra of pyproject.toml can ask for.
pytest.importorskip("lxt.explicit.rules", reason="run: pip install --no-deps lxt")

EPSILON = 1e-10
"""So small that it makes no difference that LXT adds it without a sign, and at every function."""


def transformer() -> VisionTransformer:
    """Two blocks and a class token; biases, scales and positions are random, too."""
    torch.manual_seed(0)
    model = VisionTransformer(
        **{"image_size": 16, "patch_size": 4, "num_layers": 2, "num_heads": 2},
        **{"hidden_dim": 16, "mlp_dim": 32, "num_classes": 5},
    )
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            mean = float(isinstance(module, nn.LayerNorm) and parameter is module.weight)
            nn.init.normal_(parameter, mean, 0.3)
    return model.double().eval()


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 3, 16, 16, dtype=torch.float64, generator=generator)


@pytest.mark.filterwarnings("ignore:batch norm of 16 channels")
@pytest.mark.parametrize("spelling", ["fused", "written out"])
@pytest.mark.parametrize(
    ("composite", "constant_weights"), [("flex", False), ("epsilon", False), ("cp-lrp", True)]
)
def test_heatmaps_of_a_vision_transformer_agree(
    composite: str, constant_weights: bool, spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spelling == "written out":
        parts = written_out.scaled_dot_product_attention
        monkeypatch.setattr(F, "scaled_dot_product_attention", parts)
    model, targets = transformer(), torch.tensor([0, 3, 1, 4])
    ours = Explainer(model, composite, EPSILON)(images(), targets).heatmap[:, 0]
    theirs = LxtTransformer(model, EPSILON, constant_weights).explain(images(), targets)
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_attnlrp_and_cp_lrp_are_told_apart() -> None:
    """The tolerance is far below what a wrong rule of attention changes."""
    flex = LxtTransformer(transformer(), EPSILON).explain(images(), 0)
    cp_lrp = LxtTransformer(transformer(), EPSILON, constant_weights=True).explain(images(), 0)
    assert (flex - cp_lrp).norm() > 0.1 * flex.norm()


def test_other_models_are_refused() -> None:
    with pytest.raises(TypeError, match=r"torchvision's VisionTransformer .*, got Sequential"):
        LxtTransformer(nn.Sequential())
