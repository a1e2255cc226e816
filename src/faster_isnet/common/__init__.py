"""Helpers for every part: checks of input, files, environment, precision, progress.

Nothing here knows of relevance, methods or data sets.
"""
