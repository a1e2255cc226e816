"""Name the linear interpolations of PyTorch."""

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Values of ``mode`` of ``torch.nn.functional.interpolate``, by number of spatial dimensions."""
