"""The rules for the layer that reads the pixels, found by following the image forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from faster_isnet.relevance.activations import (
    ARITHMETIC,
    COPIES,
    RELUS,
    out_of_place,
    passed_on,
    spellings,
    stabilise,
)
from faster_isnet.relevance.call_arguments import leaves, tensors_in, with_leaves
from faster_isnet.relevance.deferred_rules import BackwardRule
from faster_isnet.relevance.functions import RelevanceNode, RelevancePass, ReLU
from faster_isnet.relevance.linear_maps import LINEAR_CALLS, LinearCall
from faster_isnet.relevance.lost_batch_norms import FusableLayers
from faster_isnet.relevance.normalisations import BATCH_NORM_CALLS
from faster_isnet.relevance.tensor_metadata import Origin, TensorMetadata

# What may stand between the image and the first layer: each output is an affine function of the
# image, so the corners of the box of pixel values are sent through the same function.
AFFINE = frozenset(
    spellings(
        (
            *("add", "sub", "mul", "div", "true_divide", "neg", "rsub", "subtract", "multiply"),
            *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__neg__"),
            *("__truediv__", "__getitem__", "clone", "contiguous", "to", "float", "double"),
            *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute"),
            *("transpose", "movedim", "expand", "expand_as", "repeat", "narrow", "select"),
            *("index_select", "chunk", "split", "unbind", "cat", "concat", "concatenate", "stack"),
            *("flip", "pad", "interpolate", "adaptive_avg_pool2d"),
            *("avg_pool1d", "avg_pool2d", "avg_pool3d"),
            *("pixel_unshuffle", "unfold", "add_", "sub_", "mul_", "div_", "__iadd__", "__isub__"),
            *("__imul__", "__itruediv__"),
        )
    )
)
# Affine in one tensor of pixels only.
_MULTIPLICATIONS = spellings(["mul", "multiply", "mul_", "__mul__", "__rmul__", "__imul__"])
_DIVISIONS = spellings(["div", "true_divide", "div_", "__truediv__", "__itruediv__"])


@dataclass(frozen=True)
class _Box:
    """A tensor of pixels with the two corners of the box its values lie in, of its shape."""

    pixels: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class _FirstLayer:
    """A layer that reads pixels, and the batch norm that follows it, if one does.

    Together they compute ``z = scale · (output − bias) + shift`` per channel. The scale is part of
    the weights; the shift, made of biases and statistics, is a constant (method §2). ``output`` is
    the layer's own, which a batch norm has read.
    """

    call: LinearCall
    box: _Box
    bias_bounds: tuple[Tensor, Tensor]
    shift: Tensor | None
    scale: Tensor | None = None
    output: Tensor | None = None

    def operands(self) -> tuple[Tensor, ...]:
        """Return what the rule reads, apart from what it can tell by it."""
        operands = self.box.pixels, self.box.low, self.box.high, self.call.weight
        return operands if self.output is None else (*operands, self.output)

    def fused(self, weight: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights with the batch norm in them, and what they make of the pixels.

        ``weight`` and ``z`` are the layer's own, and its output.
        """
        linear, bias = self.call.map, self.call.bias
        if self.scale is None:
            return weight, z if bias is None else z - linear.per_output(bias)
        weight, scale = linear.scale_outputs(weight, self.scale), linear.per_output(self.scale)
        if bias is None:
            return weight, z * scale
        return weight, torch.addcmul(linear.per_output(-bias * self.scale), z, scale)

    def shifted(self, z: Tensor) -> Tensor:
        """Return the output, of what the weights make of the pixels."""
        return z if self.shift is None else z + self.call.map.per_output(self.shift)


class InputRule:
    """Gives every layer that reads the image a rule of its own (method §2).

    Follows the image through the model's affine preprocessing (normalisation, padding, slicing)
    to the layers that read it, and on through the batch norm and ReLU behind each. An
    :class:`~faster_isnet.relevance.interception.Interception` asks it first of every function.

    Parameters
    ----------
    relevance_pass
        The flag of this forward pass.
    epsilon
        The stabiliser ε of the rule's denominator.
    image, low, high
        The image that the model is called with, ``[B, C, ...]``, and the corners of the box of
        its values, of the same shape. After a relevance pass the image's relevance is the sum of
        ``t ⊙ G_t`` over these three.
    name
        Of the rule, one of :data:`INPUT_RULES`.
    image_gradient
        Whether a standard backward shall reach the image, too. It costs a convolution.

    Attributes
    ----------
    layers_found
        How many layers have been seen to read the image.
    """

    def __init__(
        self,
        relevance_pass: RelevancePass,
        epsilon: float,
        image: Tensor,
        low: Tensor,
        high: Tensor,
        name: str = "zb",
        image_gradient: bool = True,
    ) -> None:
        self._relevance_pass, self._epsilon = relevance_pass, epsilon
        self._rule, self._image_gradient = INPUT_RULES[name], image_gradient
        self._boxes = TensorMetadata[_Box]()
        self._boxes.put(image, _Box(image, low, high))
        self._first_layers = TensorMetadata[_FirstLayer]()
        self._rectified = TensorMetadata[bool]()
        self._fusable = FusableLayers()
        self.layers_found = 0

    def handler(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any] | None:
        """Return what computes a call in its place, if it reads pixels or what was made of them."""
        read = args[0] if args else kwargs.get("input")
        if func in AFFINE and any(map(self._boxes.get, leaves((args, kwargs)))):
            return partial(self._preprocess, func, args, kwargs)
        if func in COPIES or func in ARITHMETIC:
            origin = self._first_layers.origin(passed_on(func, args, kwargs))
            return None if origin is None else partial(self._copy, func, args, kwargs, origin)
        if func in LINEAR_CALLS and (box := self._boxes.get(read)):
            return partial(self._linear, func, args, kwargs, box)
        if func in BATCH_NORM_CALLS and self._first_layers.get(read) is None:
            self._fusable.warn_of_lost(BATCH_NORM_CALLS[func](*args, **kwargs).input, "")
        if layer := self._first_layers.get(read):
            if func in BATCH_NORM_CALLS and layer.scale is None:
                return partial(self._batch_norm, func, args, kwargs, layer)
            if func in RELUS:
                return partial(self._relu, func, args, kwargs, layer)
        return None

    def handles(self, tensor: Any) -> bool:
        """Return whether ``tensor`` is pixels or a first layer's output."""
        return self._boxes.get(tensor) is not None or self._first_layers.get(tensor) is not None

    def rectified(self, tensor: Any) -> bool:
        """Return whether ``tensor`` is what the ReLU of a first layer returned."""
        return self._rectified.get(tensor) is not None

    def _preprocess(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Send the corners of the box through the function that the pixels go through."""
        tensors = tensors_in(args, kwargs)
        boxes = {id(t): box for t in tensors if (box := self._boxes.get(t))}
        depends_otherwise = any(t.grad_fn is not None for t in tensors if id(t) not in boxes)
        read = sum(id(t) in boxes for t in tensors)
        product = read > 1 and func in (*_MULTIPLICATIONS, *_DIVISIONS)
        if depends_otherwise or product or (func in _DIVISIONS and id(tensors[0]) not in boxes):
            return func(*args, **kwargs)  # not affine
        # Before the function runs, since it may work in place.
        corners = [_corner(func, args, kwargs, boxes, name) for name in ("low", "high")]
        output = func(*args, **kwargs)
        for pixels, low, high in zip(*(leaves([t]) for t in (output, *corners)), strict=True):
            # A negative factor swaps the corners.
            box = _Box(pixels, torch.minimum(low, high), torch.maximum(low, high))
            self._boxes.put(pixels, box)
        return output

    def _linear(self, func: Callable[..., Any], args: Any, kwargs: Any, box: _Box) -> Tensor:
        self.layers_found += 1
        # Read three times, since reading may pad what it reads.
        reader = LINEAR_CALLS[func]
        call, low, high = (_call(reader, t, args, kwargs) for t in (box.pixels, box.low, box.high))
        pixels = box.pixels if self._image_gradient else box.pixels.detach()
        output = _call(func, pixels, args, kwargs)
        # A bias has no channel, so it gets the mean of the bounds of the channels.
        bias_bounds = (box.low.mean().detach(), box.high.mean().detach())
        box = _Box(call.input, low.input, high.input)
        shift = None if call.bias is None else call.bias.detach()
        return self._finish(output, _FirstLayer(call, box, bias_bounds, shift))

    def _batch_norm(
        self, func: Callable[..., Any], args: Any, kwargs: Any, layer: _FirstLayer
    ) -> Tensor:
        call = BATCH_NORM_CALLS[func](*args, **kwargs)
        y, mean, scale = call.normalise()
        scale = scale if call.weight is None else scale * call.weight
        shift = scale * ((0 if layer.call.bias is None else layer.call.bias.detach()) - mean)
        shift = shift if call.bias is None else shift + call.bias.detach()
        layer = replace(layer, scale=scale, shift=shift, output=call.input)
        return self._finish(y, layer)

    def _relu(self, func: Callable[..., Any], args: Any, kwargs: Any, layer: _FirstLayer) -> Tensor:
        _, z, _, _, inplace = out_of_place(func, args, kwargs)
        share = _backward_rule(self._rule, layer, self._epsilon)

        def rule(g: Tensor, a: Tensor, *operands: Tensor) -> tuple[Tensor | None, ...]:
            return None, *share(g, a, *operands)

        a: Tensor = ReLU.apply(self._relevance_pass, rule, inplace, z, *layer.operands())
        self._rectified.put(a, True)
        return a

    def _copy(
        self, func: Callable[..., Any], args: Any, kwargs: Any, origin: Origin[_FirstLayer]
    ) -> Any:
        copy = func(*args, **kwargs)
        self._first_layers.follow(origin, copy)
        return copy

    def _finish(self, output: Tensor, layer: _FirstLayer) -> Tensor:
        """Give a first layer's output a node for its relevance, and remember whose it is."""
        share = _backward_rule(self._rule, layer, self._epsilon)

        def rule(g: Tensor, *operands: Tensor) -> tuple[Tensor | None, ...]:
            return share(g, None, *operands)

        output = RelevanceNode.apply(self._relevance_pass, rule, output, *layer.operands())
        if layer.scale is None:
            self._fusable.put(output, "that reads the image")
        self._first_layers.put(output, layer)
        return output


def _backward_rule(share: _Share, layer: _FirstLayer, epsilon: float) -> BackwardRule:
    """Return ``rule(G, activation, *layer.operands())``; the activation is a ReLU's, or None."""
    call = layer.call

    def rule(
        g: Tensor,
        activation: Tensor | None,
        x: Tensor,
        low: Tensor,
        high: Tensor,
        weight: Tensor,
        *output: Tensor,
    ) -> tuple[Tensor | None, ...]:
        if output:
            (z,) = output
        elif activation is not None:
            z = activation  # where they differ the ReLU is off and has no relevance
        else:  # computed again rather than copied: what reads it may work in place
            z = call.map.forward(x, weight, call.bias)
        weight, z = layer.fused(weight, z)
        relevance = g * (layer.shifted(z) if activation is None else activation)
        box = share(layer, epsilon, relevance, z, weight, _Box(x, low, high))
        return box.pixels, box.low, box.high, None, *(None for _ in output)

    return rule


_Share = Callable[[_FirstLayer, float, Tensor, Tensor, Tensor, _Box], _Box]
"""``share(layer, ε, R, z, weight, box)`` returns the G of the pixels and of the corners, where R is
the relevance of the layer's output and z its sum; the batch norm is in z and weight."""


def _zb(
    layer: _FirstLayer, epsilon: float, relevance: Tensor, z: Tensor, weight: Tensor, box: _Box
) -> _Box:
    """Share by zB, biases and statistics constant.

    R_i = Σ_k (x_i w_ik − l_i w⁺_ik − h_i w⁻_ik) / (z_k + ε·sign z_k) R_k, split into the G of x, l
    and h.
    """
    linear = layer.call.map
    of_low, of_high = -weight.clamp(min=0), -weight.clamp(max=0)
    # The box is the same for all samples.
    low, high = box.low[:1].detach(), box.high[:1].detach()
    offset = linear.forward(low, of_low) + linear.forward(high, of_high)
    if layer.shift is not None:
        bias_low, bias_high = layer.bias_bounds
        up, down = layer.shift.clamp(min=0), layer.shift.clamp(max=0)
        offset = offset + linear.per_output(layer.shift - bias_low * up - bias_high * down)
    s = relevance / stabilise(z + offset, epsilon)
    to_low, to_high = linear.adjoints(s, (of_low, of_high), box.pixels)
    return _Box(-(to_low + to_high), to_low, to_high)


def _by_weight_alone(
    weigh: Callable[[Tensor], Tensor],
    layer: _FirstLayer,
    epsilon: float,
    relevance: Tensor,
    z: Tensor,
    weight: Tensor,
    box: _Box,
) -> _Box:
    """Share by a function of the weights, normalised, whatever the pixels are.

    What a pixel gets is returned as G of the box's corners: (high − low) ⊙ G, as both go through
    what is done to the image before.
    """
    linear, x, shares = layer.call.map, box.pixels, weigh(weight)
    fan_in = linear.forward(torch.ones_like(x[:1]), shares)
    up = linear.adjoint(relevance / stabilise(fan_in, epsilon), shares, x)
    up = up / stabilise(box.high - box.low, 0)
    return _Box(torch.zeros_like(up), -up, up)


INPUT_RULES: dict[str, _Share] = {
    "zb": _zb,
    # R_i = Σ_k w²_ik / Σ_i w²_ik R_k (Montavon et al., 2017)
    "w2": partial(_by_weight_alone, torch.square),
    # R_i = Σ_k R_k / fan-in_k, the same for all pixels (Lapuschkin et al., 2019)
    "flat": partial(_by_weight_alone, torch.ones_like),
}
"""The rules for layers that read the image, by name."""


def _call(function: Callable[..., Any], x: Tensor, args: Any, kwargs: Any) -> Any:
    """Call a function with ``x`` in the place of its input."""
    if args:
        return function(x, *args[1:], **kwargs)
    return function(**{**kwargs, "input": x})


def _corner(
    func: Callable[..., Any], args: Any, kwargs: Any, boxes: dict[int, _Box], corner: str
) -> Any:
    """Call ``func`` with a corner of the box in the place of the pixels."""

    def swap(value: Any) -> Any:
        return getattr(boxes[id(value)], corner) if id(value) in boxes else value

    args, kwargs = with_leaves((args, kwargs), swap)
    return func(*args, **kwargs)
