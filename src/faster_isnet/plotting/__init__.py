"""Draw images, masks and heatmaps with matplotlib.

Pages and tables are in :mod:`faster_isnet.reporting`; nothing here knows where a heatmap comes
from.
"""
