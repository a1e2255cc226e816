"""Measures of attention and accuracy."""
