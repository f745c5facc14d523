"""The operations of msclr: each has a plain PyTorch reference and room for faster backends."""

from msclr.kernels._backend import backends
from msclr.kernels.augment import augment, philox
from msclr.kernels.block import PackedRows, stgcn_block
from msclr.kernels.graph_conv import MAX_JOINTS, graph_support, masked_graph_conv
from msclr.kernels.info_nce import InfoNCEOutput, info_nce
from msclr.kernels.multi_view import multi_view_info_nce

__all__ = [
    "MAX_JOINTS",
    "InfoNCEOutput",
    "PackedRows",
    "augment",
    "backends",
    "graph_support",
    "info_nce",
    "masked_graph_conv",
    "multi_view_info_nce",
    "philox",
    "stgcn_block",
]
