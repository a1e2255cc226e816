"""The ISNet: a classifier whose heatmap is kept off the background while it is trained.

Its network, its loss, the calibration of C1 and C2, and the method that joins them are here; how
heatmaps are computed is in :mod:`faster_isnet.explaining`.
"""
