"""Provide helpers for all packages: checks of arguments, files, environment, precision, progress.

Nothing here depends on relevance, methods or data sets.
"""
