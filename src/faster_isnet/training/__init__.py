"""Train a classifier by a method, with Lightning, and export the result.

What a method minimises is in :mod:`faster_isnet.methods`; images and masks come from
:mod:`faster_isnet.data`.
"""
