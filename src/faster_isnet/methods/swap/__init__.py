"""Training on images whose backgrounds are swapped.

The functions on tensors and the method are here; the ISNet swaps backgrounds by the same function
(:mod:`faster_isnet.methods.isnet.method`).
"""
