"""Datasets and masks."""

from faster_isnet.data.digits import BIASES, BiasedDigits, BiasedDigitsData

__all__ = ["BIASES", "BiasedDigits", "BiasedDigitsData"]
