"""Encoders and layers for skeletons of any joint layout."""

from msclr.nn.accelerate import Summary, accelerate, restore
from msclr.nn.block import STGCNBlock
from msclr.nn.graph_conv import Graph, GraphConv
from msclr.nn.norm import BatchNorm, InputNorm
from msclr.nn.pretrained import Pretrained, load_pretrained
from msclr.nn.stgcn import STGCN

__all__ = [
    "STGCN",
    "BatchNorm",
    "Graph",
    "GraphConv",
    "InputNorm",
    "Pretrained",
    "STGCNBlock",
    "Summary",
    "accelerate",
    "load_pretrained",
    "restore",
]
