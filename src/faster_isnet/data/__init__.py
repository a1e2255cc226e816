"""Datasets and masks."""
