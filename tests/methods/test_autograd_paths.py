"""Paths from an image to logits: which tensors all of them go through."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from faster_isnet.methods.autograd_paths import AutogradPaths


def found(x: Tensor, y: Tensor, *tensors: Tensor) -> list[tuple[bool, bool]]:
    paths, edges = AutogradPaths(x, y), map(get_gradient_edge, tensors)
    return [(paths.all_through(edge), paths.some_beside(edge)) for edge in edges]


ALL, SOME, NONE = (True, False), (False, True), (False, False)


def test_a_residual_block() -> None:
    x, weight = torch.rand(3, requires_grad=True), nn.Parameter(torch.rand(3))
    before = x * weight
    branch = before.exp()
    after = before + branch
    assert found(x, after.sum(), before, branch, after, weight) == [ALL, SOME, ALL, NONE]


def test_branches_that_meet_only_at_the_end() -> None:
    x = torch.rand(3, requires_grad=True)
    one, two = x.exp(), x.sin()
    assert found(x, (one * two).sum(), one, two) == [SOME, SOME]


def test_a_function_of_several_outputs_is_not_one_tensor() -> None:
    x = torch.rand(4, requires_grad=True)
    whole = x.exp()
    one, two = whole.chunk(2)
    assert found(x, (one + two.sin()).sum(), whole, one, two) == [ALL, SOME, SOME]
    assert found(x, one.sum(), one) == [ALL]


def test_what_does_not_depend_on_the_start_lies_on_no_path() -> None:
    x, other = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    assert found(x, other.exp().sum(), other) == [NONE]


def test_more_paths_than_a_float_can_count() -> None:
    x = torch.rand(3, requires_grad=True)
    y, middle = x, None
    for number in range(600):
        branch = y * 0.5
        y = y * 0.5 + branch
        middle = y if number == 300 else middle
    assert middle is not None
    assert found(x, y, middle, branch, y) == [ALL, SOME, ALL]
