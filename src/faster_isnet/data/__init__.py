"""Datasets and masks."""

from faster_isnet.data.digits import BIASES, SOURCES, BiasedDigits, BiasedDigitsData

__all__ = ["BIASES", "SOURCES", "BiasedDigits", "BiasedDigitsData"]
