"""The temporal convolution of ST-GCN with its batch norms, a part of the block: operator.py."""
