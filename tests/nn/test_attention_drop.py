"""The attention-guided drop is its formula in plain loops; masks and factors are constants."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from msclr import kernels
from msclr.kernels import PackedRows
from msclr.nn.attention_drop import rescaling


def feature_maps(dtype=torch.float64):
    """Two layouts' maps (N, C, T, V), so many and so small that cells lie near the threshold."""
    g = torch.Generator().manual_seed(0)
    shapes = [(40, 2, 2, 3), (30, 2, 2, 4)]
    groups = [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]
    for x in groups:
        x[:5, ..., 1] += 9  # a whole joint of five tracks
    return [x.to(dtype) for x in groups]


def attention(x):
    """s of every cell, in Python numbers: {(n, c, t, v): s}."""
    tracks, channels, frames, joints = x.shape
    s = {}
    for n, c in product(range(tracks), range(channels)):
        cells = list(product(range(frames), range(joints)))
        values = {(t, v): x[n, c, t, v].item() for t, v in cells}
        mean = math.fsum(values.values()) / len(cells)
        variance = math.fsum((y - mean) ** 2 for y in values.values()) / (len(cells) - 1)
        for t, v in cells:
            energy = (values[t, v] - mean) ** 2 / (4 * (variance + 1e-4)) + 0.5
            s[n, c, t, v] = 1 / (1 + math.exp(-energy))
    return s


def scale_by_loops(groups):
    """What each cell is multiplied by, and how many joints and cells were zeroed in all."""
    kept_joints, kept_cells, joints, cells = [], [], 0, 0
    for x in groups:
        s = attention(x)
        tracks, channels, frames, count = x.shape
        joint = torch.zeros(tracks, 1, 1, count, dtype=torch.float64)
        for n, v in product(range(tracks), range(count)):
            here = [s[n, c, t, v] for c, t in product(range(channels), range(frames))]
            joint[n, 0, 0, v] = float(math.fsum(here) / len(here) < 0.7)
        cell = torch.zeros(x.shape, dtype=torch.float64)
        for index, value in s.items():
            cell[index] = float(value < 0.7)
        kept_joints.append(joint)
        kept_cells.append(cell)
        joints, cells = joints + joint.numel(), cells + cell.numel()
    left = sum(float(j.sum()) for j in kept_joints), sum(float(c.sum()) for c in kept_cells)
    factor = joints / left[0] * cells / left[1]
    scales = [j * c * factor for j, c in zip(kept_joints, kept_cells, strict=True)]
    return scales, (joints - left[0], cells - left[1])


def pooled_drop(groups, backend=None):
    """Means after the drop (R, C), rescaled."""
    found = kernels.drop_pool(PackedRows.of(groups), backend=backend)
    return found.dropped * rescaling(found.counts).to(found.dropped)


def means(groups):
    return torch.cat([x.mean(dim=(2, 3)) for x in groups])


@pytest.mark.parametrize("backend", [None, "reference"])
def test_the_drop_is_its_formula_over_the_whole_batch_of_all_layouts(backend):
    groups = [x.requires_grad_() for x in feature_maps()]
    scales, zeroed = scale_by_loops([x.detach() for x in groups])
    assert zeroed[0] >= 5 and zeroed[1] > 4 * zeroed[0], "joints and more than their cells"
    found = pooled_drop(groups, backend)
    wanted = means([x * scale for x, scale in zip(groups, scales, strict=True)])
    torch.testing.assert_close(found, wanted)
    upstream = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, groups, upstream), torch.autograd.grad(wanted, groups, upstream)
    )


def test_kept_is_counted_over_all_layouts_and_not_layout_by_layout():
    groups = feature_maps()
    together = pooled_drop(groups)
    alone = torch.cat([pooled_drop([x]) for x in groups])
    assert torch.equal(together == 0, alone == 0) and not torch.allclose(together, alone)


def test_a_constant_map_loses_nothing():
    x = torch.full((2, 3, 4, 5), 7.0)
    assert torch.equal(pooled_drop([x]), means([x]))


def test_a_layout_without_tracks_changes_nothing():
    groups = feature_maps()
    with_empty = pooled_drop([*groups, torch.zeros(0, 2, 4, 7, dtype=torch.float64)])
    torch.testing.assert_close(with_empty, pooled_drop(groups))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_get_the_drop_of_float32(dtype):
    halves = feature_maps(dtype)
    assert torch.equal(pooled_drop(halves), pooled_drop([x.float() for x in halves]))
