"""GraphConv: ST-GCN's parameters and signature around masked_graph_conv."""

from __future__ import annotations

import pytest
import torch

from msclr.kernels import graph_support
from msclr.nn import Graph, GraphConv


def inputs(k=3, v=5):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 6, v, generator=g, dtype=torch.float64)
    return x, torch.randn(k, v, v, generator=g, dtype=torch.float64)


def as_stgcn_writes_it(conv, x, adjacency):
    """1x1 convolution, channels split as (K, C_out), then the product with each part's graph."""
    k = len(adjacency)
    parts = conv(x).unflatten(1, (k, -1))  # (N, K, C_out, T, V)
    return sum(parts[:, i] @ adjacency[i] for i in range(k))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_that_of_st_gcn(k, bias):
    torch.manual_seed(0)
    layer = GraphConv(2, 4, k, bias=bias).double()
    x, adjacency = inputs(k)
    y, returned = layer(x, adjacency)
    assert y.shape == (4, 4, 6, 5) and returned is adjacency
    torch.testing.assert_close(y, as_stgcn_writes_it(layer.conv, x, adjacency))


def test_the_parameters_bear_st_gcns_names():
    shapes = {name: tuple(p.shape) for name, p in GraphConv(2, 4, 3).state_dict().items()}
    assert shapes == {"conv.weight": (12, 2, 1, 1), "conv.bias": (12,)}
    assert list(GraphConv(2, 4, 3, bias=False).state_dict()) == ["conv.weight"]


def test_weights_of_an_st_gcn_load_and_learn():
    torch.manual_seed(0)
    theirs = torch.nn.Conv2d(2, 12, 1).double()
    layer = GraphConv(2, 4, 3).double()
    layer.load_state_dict({f"conv.{name}": p for name, p in theirs.state_dict().items()})
    x, adjacency = inputs()
    adjacency.requires_grad_()
    found = torch.autograd.grad(
        layer(x, adjacency)[0].square().sum(), [*layer.parameters(), adjacency]
    )
    wanted = torch.autograd.grad(
        as_stgcn_writes_it(theirs, x, adjacency).square().sum(), [*theirs.parameters(), adjacency]
    )
    torch.testing.assert_close(found, wanted)


def test_a_graph_brings_mixed_layouts_and_its_support():
    torch.manual_seed(0)
    layer = GraphConv(2, 4, 3).double()
    x, small = inputs(v=3)
    _, large = inputs(v=5)
    padded = torch.nn.functional.pad(small, (0, 2, 0, 2))
    adjacency = torch.stack([large, padded])
    graph = Graph(
        adjacency,
        support=graph_support(adjacency),
        layout_index=torch.tensor([1, 1, 1, 1]),
        joint_counts=torch.tensor([5, 3]),
    )
    y, returned = layer(torch.nn.functional.pad(x, (0, 2), value=torch.nan), graph)
    assert returned is graph
    torch.testing.assert_close(y[..., :3], layer(x, small)[0])
    assert (y[..., 3:] == 0).all()


def test_the_support_of_a_graph_is_used():
    layer = GraphConv(2, 4, 3).double()
    x, adjacency = inputs()
    adjacency[:, 0, 1] = 0
    support = graph_support(adjacency)
    adjacency.requires_grad_()
    layer(x, Graph(adjacency, support))[0].sum().backward()
    assert (adjacency.grad[:, 0, 1] == 0).all() and (adjacency.grad[support] != 0).all()


@pytest.mark.parametrize("wrap", [lambda a: a, Graph])
def test_another_number_of_partitions_is_refused(wrap):
    x, adjacency = inputs(k=2)
    with pytest.raises(ValueError, match="^A must have 3 partitions"):
        GraphConv(2, 4, 3).double()(x, wrap(adjacency))
