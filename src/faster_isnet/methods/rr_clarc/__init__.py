"""RR-ClArC: a latent gradient that is kept off the directions of the background.

The directions and the method are here; how backgrounds are swapped to find them is in
:mod:`faster_isnet.methods.swap`.
"""
