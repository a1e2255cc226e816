"""Explain a model's decisions: the explainer, what is explained, heatmaps as files.

How relevance flows through layers is in :mod:`faster_isnet.relevance`; training with explanations
is in :mod:`faster_isnet.methods`.
"""
