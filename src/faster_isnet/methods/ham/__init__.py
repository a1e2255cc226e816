"""Hierarchical attention mining (HAM): the network, its losses, and the method.

The method is in :mod:`~faster_isnet.methods.ham.method`.
"""
