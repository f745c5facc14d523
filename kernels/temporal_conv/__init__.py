"""The temporal convolution of ST-GCN with its batch norms: see operator.py."""

from msclr.kernels.temporal_conv import operator

__all__ = ["operator"]
