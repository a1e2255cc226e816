"""Explaining a model: which input elements speak for what it says, by LRP."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor, nn

from faster_isnet.common.checks import (
    check_choice,
    check_explainable,
    check_finite_explanation,
    check_image_range,
    check_image_values,
    check_images,
    check_logits,
    check_parameters,
    check_precision,
    check_range,
    check_single_input,
    refusal,
)
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.common.precision import at_least_float32
from faster_isnet.explaining.explanation import Explanation
from faster_isnet.explaining.pixel_bounds import Bound, check_bound, corner, read_bound
from faster_isnet.explaining.propagation import Start, arrived, no_relevance, propagate, start
from faster_isnet.explaining.support import (
    Support,
    missing_share,
    random_image,
    without_biases,
)
from faster_isnet.explaining.targets import Target
from faster_isnet.relevance import (
    INPUT_RULES,
    Carriers,
    Composite,
    InputRule,
    Interception,
    RelevancePass,
    build_composite,
    check_layers,
    hidden_outputs,
    intercepting,
    is_softmax,
    shared_statistics,
)

log = logging.getLogger(__name__)


class Explainer:
    """Explains any differentiable image model by layer-wise relevance propagation.

    The model is not changed: while it runs, its functions are intercepted, and a modified
    backward pass carries the relevance (by default LRP-Flex; Bassi et al., IEEE Access 12, 2024).
    It is explained in the mode it is in, so call ``model.eval()`` first unless you mean otherwise.

    Parameters
    ----------
    model
        Maps images ``[B, ...]`` to logits ``[B, C]``. A single logit z for yes or no, ``[B, 1]``
        or ``[B]``, is explained as the logits (−z/2, z/2) of two classes.
    composite
        Which rule each layer gets: ``"flex"``, ``"cp-lrp"`` (flex with constant attention
        weights), ``"epsilon"``, ``"zplus"``, ``"alpha2-beta1"``,
        ``"epsilon-gamma-box"``, ``"epsilon-plus"``, ``"dual"`` (two heatmaps: z⁺ and ε),
        ``"gradient-x-input"``, or one's own :class:`~faster_isnet.relevance.LayerComposite`.
    epsilon
        The stabiliser ε ≥ 0. Larger values make smoother heatmaps and lose more relevance; 1e-2
        is the papers' choice.
    input_rule
        The rule of every layer that reads the image: ``"zb"``, ``"w2"`` or ``"flat"`` (see
        :data:`~faster_isnet.relevance.INPUT_RULES`), or ``None`` for the composite's own: zB for
        ``"epsilon-gamma-box"``, for the others the one that such a layer has elsewhere.
    layers
        Names of modules (as in ``model.named_modules()``) whose outputs' relevance is wanted.
    input_low, input_high
        For zB, the bounds of the image values: scalars, or one for each channel. For an image in
        [0, 1] that is normalised with mean and std outside of the model they are ``-mean/std``
        and ``(1-mean)/std``; a normalisation inside of the model is followed.
    strict
        Refuse to explain a model in which relevance passes through a function that the composite
        has no rule for. The default warns of such functions once, in the first explanation: they
        pass relevance by their gradient, which need not be what they contribute.

    Raises
    ------
    TypeError
        If the model is not a module, or of a kind whose functions cannot be intercepted
        (TorchScript, DataParallel, torch.compile).
    ValueError
        If a name is unknown, ε is negative or not finite, or a lower bound is not below its upper.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> explanation = Explainer(model)(torch.rand(5, 1, 2, 2), target="all-classes")
    >>> explanation.heatmap.shape  # five samples, three heatmaps each
    torch.Size([5, 3, 1, 2, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        composite: str | Composite = "flex",
        epsilon: float = 1e-2,
        input_rule: str | None = None,
        layers: Sequence[str] = (),
        input_low: Bound = 0.0,
        input_high: Bound = 1.0,
        strict: bool = False,
    ) -> None:
        check_explainable(model)
        check_range("epsilon", epsilon, 0)
        if input_rule is not None:
            check_choice("input_rule", input_rule, INPUT_RULES)
        self.model = model
        self.composite = build_composite(composite, epsilon)
        self.epsilon = epsilon
        self.input_rule = self.composite.input_rule if input_rule is None else input_rule
        self.layers = check_layers(model, layers)
        self.strict = strict
        self._examined = set[bool]()  # the modes, of training or not
        self.input_low = read_bound("input_low", input_low)
        self.input_high = read_bound("input_high", input_high)
        if not bool((self.input_low < self.input_high).all()):
            raise ValueError(
                f"input_low must be below input_high in every channel, got {input_low!r} and "
                f"{input_high!r}"
            )

    def __call__(
        self, images: Tensor, target: Target = None, *, differentiable: bool = False
    ) -> Explanation:
        """Explain what the model says of ``images``.

        Parameters
        ----------
        images
            ``[B, ...]``, float32 or float64, finite.
        target
            What to explain: ``None`` for the highest logit, a class, classes ``[B]``,
            another name of :data:`~faster_isnet.explaining.targets.QUANTITIES`, such as
            ``"lowest-eta"``, ``"all-classes"`` or ``"all-logits"``, or a function from logits to
            scalars ``[B, K]``.
        differentiable
            Record the relevance pass, so that a loss of the heatmap can be differentiated. The
            default gives detached tensors and frees the graph.

        Returns
        -------
        Explanation
            Logits, heatmaps, relevance of hidden layers, and the quantity explained.

        Raises
        ------
        TypeError, ValueError
            If images, target or the model's output are not as described above; the message
            names the value and the cure.
        FloatingPointError
            If the heatmap is not finite and not to be differentiated (checked in host memory only).
        RuntimeError
            If no relevance reaches the images or a layer; if ``strict`` and relevance passes
            through a function without a rule; or under autocast with a composite of rules for
            layers, which half precision has too few digits for.
        """
        if torch.compiler.is_dynamo_compiling():  # compiled, it would be wrong: docs/compile.md
            eager = torch.compiler.disable(self.__call__)  # type: ignore[no-untyped-call]
            return eager(images, target, differentiable=differentiable)  # type: ignore[no-any-return]
        check_explainable(self.model)
        check_single_input(self.model)
        check_images(images)
        if not self.composite.half_precision:
            check_precision(images, self.composite.name)
            check_parameters(self.model, images, self.composite.name)
        if self.composite.gradient_alone or self.model.training in self._examined:
            return self._explain(images, target, differentiable)
        carriers = Carriers(unknown_only=True)
        explanation = self._explain(images, target, differentiable, carriers)
        self._name_unknown(carriers.unknown)
        self._examined.add(self.model.training)
        return explanation

    @classmethod
    def supports(cls, model: nn.Module, size: int | Sequence[int], **options: Any) -> Support:
        """Explain one random image, and say how exactly.

        Parameters
        ----------
        model
            As for the class. It is explained in evaluation mode, and stays as it is.
        size
            Of the image: one side, ``(H, W)`` or ``(C, H, W)``, or with more dimensions. Without C
            it has the channels that the model's first convolution reads, or 3.
        options
            Other arguments of the class, such as ``composite``.

        Raises
        ------
        TypeError, ValueError, RuntimeError, FloatingPointError
            As a call does, if the model cannot be explained at all.

        Examples
        --------
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 2))
        >>> support = Explainer.supports(model, 8)
        >>> dict(support.approximate), dict(support.unknown), support.error < 1e-9
        ({}, {}, True)
        """
        explainer, carriers = cls(model, **options), Carriers()
        images = random_image(model, size, explainer.input_low, explainer.input_high)
        with eval_mode(model):
            found = explainer._explain(images, None, False, carriers)
        if explainer.composite.gradient_alone:
            carriers.approximate += carriers.unknown
            carriers.unknown.clear()
        try:
            neutral = cls(without_biases(model).double(), **options | {"epsilon": 0.0})
            exact = neutral._explain(images.double(), None, False)
            error = abs(missing_share(exact.quantity, exact.heatmap))
        except (RuntimeError, TypeError, ValueError, FloatingPointError) as reason:
            log.info("the conservation error without biases is not known: %s", reason)
            error = math.nan
        return Support(
            *(dict(carriers.exact), dict(carriers.approximate), dict(carriers.unknown)),
            absorbed=missing_share(found.quantity, found.heatmap),
            error=error,
        )

    def _explain(
        self,
        images: Tensor,
        target: Target,
        differentiable: bool,
        carriers: Carriers | None = None,
    ) -> Explanation:
        """Explain the model, and let ``carriers`` count what carries relevance."""
        with torch.inference_mode(False), torch.enable_grad():
            pixels = _as_pixels(images, differentiable)
            relevance_pass = RelevancePass(differentiable)
            run = self._forward(images, pixels, relevance_pass, target)
            if carriers is not None:
                carriers.watch(run.logits, relevance_pass)
            tensors = [*run.sources, *run.hidden.values()]
            names = ["image"] * len(run.sources) + list(run.hidden)
            passes = []
            for number, begun in enumerate(run.starts):
                keep = number + 1 < len(run.starts)
                with relevance_pass.running(number, batched=begun.quantity.shape[1] > 1):
                    gs = propagate(begun.quantity, tensors, differentiable, keep)
                passes.append(arrived(gs, names))
            relevances = [
                at_least_float32(t).unsqueeze(1) * torch.cat(gs, 1)
                for t, gs in zip(tensors, zip(*passes, strict=True), strict=True)
            ]
        heatmap = sum(relevances[1 : len(run.sources)], relevances[0])
        layers = dict(zip(run.hidden, relevances[len(run.sources) :], strict=True))
        quantity = torch.cat([begun.relevance for begun in run.starts], 1)
        explanation = Explanation(run.logits, heatmap, layers, quantity)
        if differentiable:  # the loss says of which samples it must be finite
            return explanation
        check_finite_explanation(run.logits, quantity, heatmap)
        return _detached(explanation)

    def _name_unknown(self, unknown: Mapping[str, int]) -> None:
        """Warn of functions without a rule, or refuse them."""
        if not unknown:
            return
        text = (
            f"relevance passes through {', '.join(sorted(unknown))} of {type(self.model).__name__}"
            f", for which composite {self.composite.name!r} has no rule: by the gradient, which "
            "need not be what the function contributes, so the heatmap may be wrong. "
        )
        if self.strict:
            raise RuntimeError(
                text + "Replace the function in the model, give a FunctionComposite with a handler "
                "for it, or allow it by strict=False; Explainer.supports(model, size) measures"
            )
        warnings.warn(
            text + "Explainer.supports(model, size) measures how much is lost", stacklevel=3
        )

    def check_pixels(self, images: Tensor) -> None:
        """Check the values of images in host memory, before they go to an accelerator.

        A call looks at no values there, since that would wait for all that the device computes.

        Parameters
        ----------
        images
            ``[B, ...]``.

        Raises
        ------
        ValueError
            If a value is not finite or, for zB, lies outside of ``[input_low, input_high]``.
        """
        if self.input_rule == "zb":
            for bound in (self.input_low, self.input_high):
                check_bound(bound, images)
            check_image_range(images, self.input_low, self.input_high)
        else:
            check_image_values(images)

    @overload
    def attribute(self, inputs: Tensor, target: Target = None) -> Tensor: ...

    @overload
    def attribute(self, inputs: tuple[Tensor], target: Target = None) -> tuple[Tensor]: ...

    def attribute(
        self, inputs: Tensor | tuple[Tensor], target: Target = None
    ) -> Tensor | tuple[Tensor]:
        """Return one heatmap a sample, shaped like ``inputs``: captum's spelling of a call.

        Metrics made for captum's attributions, and Quantus, take it as it is.

        Parameters
        ----------
        inputs
            The images, or a tuple that holds them alone; then a tuple is returned.
        target
            As for a call, or such a tuple.

        Raises
        ------
        TypeError
            If there are several inputs: what is explained is a function of one batch of images.
        ValueError
            If the target gives more than one heatmap a sample.
        """
        if isinstance(inputs, tuple):
            if len(inputs) != 1:
                raise TypeError(
                    f"got {len(inputs)} inputs, but a model of one batch of images is explained; "
                    "wrap the model in a module that holds the other inputs, or makes them of one"
                )
            return (self.attribute(inputs[0], target),)
        heatmap = self(inputs, target).heatmap
        if heatmap.shape[1] != 1:
            raise ValueError(
                f"target {target!r} gives {heatmap.shape[1]} heatmaps a sample; attribute() "
                "returns one: call the explainer itself, or name one class"
            )
        return heatmap.squeeze(1)

    def _forward(
        self, images: Tensor, pixels: Tensor, relevance_pass: RelevancePass, target: Target
    ) -> _Run:
        """Run the model, and ask what is explained."""
        image = pixels.clone()  # the model may work in place
        leaves = self._corners(pixels)
        corners = tuple(corner.clone() for corner in leaves)
        relevance_pass.sources = frozenset(t.grad_fn for t in (image, *corners))
        input_rule = self._input_rule(relevance_pass, image, corners, pixels is images)
        with (
            shared_statistics(self.model),
            hidden_outputs(self.model, self.layers) as hidden,
            self.composite.running_module(self.model) as running,
        ):
            forward = self.composite.begin(relevance_pass, running, input_rule)

            def has_metadata(tensor: Tensor) -> bool:
                handled = input_rule is not None and input_rule.handles(tensor)
                return handled or forward.has_metadata(tensor)

            mode = Interception(forward.handlers(), relevance_pass, input_rule)
            with intercepting(mode, has_metadata, relevance_pass.reset):
                try:
                    logits = self.model(image)
                except (RuntimeError, ValueError) as error:
                    said = refusal(error, self.model, images)
                    if said is error:
                        raise
                    raise said from error
        check_logits(logits, len(pixels))
        if is_softmax(logits):  # whose relevance is its gradient, which sums to nothing
            raise no_relevance(["image"])
        with Interception(forward.quantity_handlers(), relevance_pass):
            starts = [
                start(forward.start(logits, number), target, len(pixels))
                for number in range(self.composite.passes)
            ]
        self._check_ran(input_rule, hidden)
        return _Run(logits, [pixels, *leaves], hidden, starts)

    def _corners(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the corners of the box of pixel values, if the input rule has one."""
        if self.input_rule is None:
            return ()
        low, high = (corner(bound, pixels) for bound in (self.input_low, self.input_high))
        if self.input_rule == "zb":
            check_image_range(pixels.detach(), self.input_low, self.input_high)
        return low, high

    def _input_rule(
        self,
        relevance_pass: RelevancePass,
        image: Tensor,
        corners: tuple[Tensor, ...],
        image_gradient: bool,
    ) -> InputRule | None:
        """Return the rule of the layers that read the image, if they have one of their own."""
        if self.input_rule is None:
            return None
        low, high = corners
        return InputRule(
            *(relevance_pass, self.epsilon, image, low, high, self.input_rule),
            image_gradient=image_gradient,
        )

    def _check_ran(self, input_rule: InputRule | None, hidden: Mapping[str, Tensor]) -> None:
        """Check that the layers that were asked for have run."""
        if input_rule is not None and not input_rule.layers_found:
            raise RuntimeError(
                f"input_rule={self.input_rule!r}: no convolution or linear layer reads the image, "
                "or what is done to it before is not affine; use input_rule=None"
            )
        missing = [name for name in self.layers if name not in hidden]
        if missing:
            raise RuntimeError(f"layers {missing} did not run in the model's forward pass")


@dataclass(frozen=True)
class _Run:
    """What a forward pass leaves: what the heatmap is summed over, hidden outputs, the starts."""

    logits: Tensor
    sources: list[Tensor]
    hidden: dict[str, Tensor]
    starts: list[Start]


def _as_pixels(images: Tensor, differentiable: bool) -> Tensor:
    """Return ``images`` as a tensor that relevance can be asked of."""
    if images.is_inference():
        images = images.clone()
    if differentiable and images.requires_grad:
        return images
    return images.detach().requires_grad_()


def _detached(explanation: Explanation) -> Explanation:
    return Explanation(
        explanation.logits.detach(),
        explanation.heatmap.detach(),
        {name: relevance.detach() for name, relevance in explanation.layers.items()},
        explanation.quantity.detach(),
    )
