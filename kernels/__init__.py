"""The operations of msclr: each has a plain PyTorch reference and room for faster backends."""

from msclr.kernels._backend import backends
from msclr.kernels._block_sizes import block_sizes_hash
from msclr.kernels._choice import check_override, use_backend
from msclr.kernels._qualify import examine, prepare, would_run
from msclr.kernels.augment import STREAMS, augment, philox
from msclr.kernels.block import PackedRows, block_backend, stgcn_block
from msclr.kernels.drop_pool import Pooled, drop_pool
from msclr.kernels.graph_conv import MAX_JOINTS, graph_support, masked_graph_conv
from msclr.kernels.info_nce import InfoNCEOutput, info_nce
from msclr.kernels.multi_view import multi_view_info_nce

__all__ = [
    "MAX_JOINTS",
    "STREAMS",
    "InfoNCEOutput",
    "PackedRows",
    "Pooled",
    "augment",
    "backends",
    "block_backend",
    "block_sizes_hash",
    "check_override",
    "drop_pool",
    "examine",
    "graph_support",
    "info_nce",
    "masked_graph_conv",
    "multi_view_info_nce",
    "philox",
    "prepare",
    "stgcn_block",
    "use_backend",
    "would_run",
]
