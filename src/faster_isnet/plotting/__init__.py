"""Draw images, masks, heatmaps, curves and bars with matplotlib.

Pages and tables are in :mod:`faster_isnet.reporting`; functions here take plain arrays and tensors,
and do not depend on how these were made.
"""
