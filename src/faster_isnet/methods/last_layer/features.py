"""Collect what the last linear layer of a network reads of images, and their groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from faster_isnet.common.batch import Batch
from faster_isnet.common.checks import NO_ATTRIBUTE, check_labels
from faster_isnet.common.eval_mode import eval_mode
from faster_isnet.common.logits import class_logits
from faster_isnet.common.processes import gather
from faster_isnet.methods.groups import GIVE_ATTRIBUTES, Group, are_tied, groups_of
from faster_isnet.methods.last_layer.regression import GroupedFeatures
from faster_isnet.models.heads import last_linear


@dataclass(frozen=True)
class LastLayerFeatures:
    """Hold what the last layer reads of images, and their groups.

    Attributes
    ----------
    layer
        Name of the layer.
    features
        ``[N, D]`` float64, in host memory.
    groups
        Of each image.
    """

    layer: str
    features: Tensor
    groups: Sequence[Group]

    def grouped(self, classes: int) -> GroupedFeatures:
        """Return those of images with a known attribute, with groups by number.

        Raises
        ------
        ValueError
            If the images of a class do not have several attributes.
        """
        known = [i for i, group in enumerate(self.groups) if group[1] != NO_ATTRIBUTE]
        groups = [self.groups[i] for i in known]
        _check_groups(groups, classes, len(self.groups))
        numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
        return GroupedFeatures(
            self.features[known].numpy(),
            np.array([label for label, _ in groups]),
            np.array([numbers[group] for group in groups]),
        )

    def missing_groups(self) -> list[Group]:
        """Return the pairs of a label and an attribute that no image has."""
        found = {group for group in self.groups if group[1] != NO_ATTRIBUTE}
        labels, attributes = (sorted({group[part] for group in found}) for part in (0, 1))
        return [(label, a) for label in labels for a in attributes if (label, a) not in found]


@torch.inference_mode(False)
@torch.no_grad()
def last_layer_features(network: nn.Module, batches: Iterable[Batch]) -> LastLayerFeatures:
    """Run a network in evaluation mode, on the images of all processes.

    Parameters
    ----------
    network
        From images to logits.
    batches
        With labels ``[B]``, on the network's device; of this process.

    Raises
    ------
    ValueError
        If there are no batches, a label is out of range, or the logits are not the output of a
        linear layer whose weights can be set.
    FloatingPointError
        If what the layer reads is not finite.

    Examples
    --------
    >>> batch = Batch(torch.rand(2, 3), torch.tensor([0, 1]), attributes=torch.tensor([1, 1]))
    >>> found = last_layer_features(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), [batch])
    >>> found.layer, found.groups
    ('1', [(0, 1), (1, 1)])
    """
    layer, features, groups = None, [], list[Group]()
    with eval_mode(network):
        for batch in batches:
            if layer is None:
                layer = last_linear(network, batch.images[:1])
                _check_settable(network.get_submodule(layer), layer)
            features.append(_input_of(network, layer, batch).double().cpu())
            groups += groups_of(batch)
    if layer is None:
        raise ValueError("the validation set is empty; add images to refit the last layer on")
    shares = gather((torch.cat(features), groups))
    return LastLayerFeatures(
        layer,
        torch.cat([share for share, _ in shares]),
        [group for _, share in shares for group in share],
    )


def _check_settable(layer: nn.Module, name: str) -> None:
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        raise ValueError(
            f"the last layer, {name!r}, computes its weights from other parameters, so they cannot "
            "be set; remove the parametrisation, such as a weight norm"
        )


def _input_of(network: nn.Module, name: str, batch: Batch) -> Tensor:
    """Return what the last layer reads, ``[B, D]``, if its output are the logits."""
    with _calls_of(network.get_submodule(name)) as calls:
        logits = network(batch.images)
    check_labels(batch.needed("labels"), class_logits(logits), "multiclass")
    (read, output), *more = calls
    same = output.numel() == logits.numel()
    if not bool(read.isfinite().all()):
        raise FloatingPointError(f"the last layer, {name!r}, reads NaN or infinite values")
    if more or not same or not torch.equal(output.flatten(), logits.flatten()):
        raise ValueError(
            f"the logits are not the output of the last linear layer, {name!r}: something changes "
            "them behind it, or it runs more than once; method 'last-layer' needs a network whose "
            "logits are the output of one linear layer"
        )
    return read.flatten(1)


@contextmanager
def _calls_of(layer: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Keep input and output of each call of a layer inside the block."""
    calls: list[tuple[Tensor, Tensor]] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((args[0], output))

    handle = layer.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def _check_groups(groups: Sequence[Group], classes: int, of_all: int) -> None:
    """Check that the images of each class have several attributes.

    Raises
    ------
    ValueError
        If they have not.
    """
    if not groups:
        raise ValueError(
            f"none of the {of_all} validation images has an attribute, without which method "
            f"'last-layer' has no groups to balance; {GIVE_ATTRIBUTES}"
        )
    attributes = {label: {a for each, a in groups if each == label} for label in range(classes)}
    if absent := [label for label, found in attributes.items() if not found]:
        raise ValueError(
            f"validation has no images with a known attribute of the classes {absent[:10]}; add "
            "some, or give the validation set a larger share (data.fractions)"
        )
    single = {label: min(found) for label, found in attributes.items() if len(found) == 1}
    if single or are_tied(groups):
        listed = [f"class {label} with attribute {a} only" for label, a in single.items()]
        raise ValueError(
            "the last layer cannot learn to ignore attributes that tell the class in validation, "
            f"too: {', '.join(listed[:10]) or 'each attribute goes with one class only'}; add "
            "images of other pairs to it (planted marks: planting.correlation below 1)"
        )
