"""attention_guided_drop equals its formula in plain loops; masks and factors are constants."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from msclr.nn.attention_drop import attention_guided_drop


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


def test_the_drop_is_its_formula_over_the_whole_batch_of_all_layouts():
    groups = feature_maps()
    scales, zeroed = scale_by_loops(groups)
    assert zeroed[0] >= 5 and zeroed[1] > 4 * zeroed[0], "joints and more than their cells"
    wanted = [x * scale for x, scale in zip(groups, scales, strict=True)]
    torch.testing.assert_close(attention_guided_drop(groups), wanted)


def test_kept_is_counted_over_all_layouts_and_not_layout_by_layout():
    groups = feature_maps()
    together = attention_guided_drop(groups)
    alone = [attention_guided_drop([x])[0] for x in groups]
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a == 0, b == 0) and not torch.allclose(a, b)


def test_masks_and_factors_are_constants():
    groups = [x.requires_grad_() for x in feature_maps()]
    upstream = [torch.randn_like(x) for x in groups]
    dropped = attention_guided_drop(groups)
    gradients = torch.autograd.grad(dropped, groups, upstream)
    scales, _ = scale_by_loops([x.detach() for x in groups])
    wanted = [u * scale for u, scale in zip(upstream, scales, strict=True)]
    torch.testing.assert_close(list(gradients), wanted)


def test_nothing_stands_out_in_a_constant_map():
    x = torch.full((2, 3, 4, 5), 7.0)
    assert torch.equal(attention_guided_drop([x])[0], x)


def test_a_layout_without_tracks_changes_nothing():
    groups = feature_maps()
    wanted = attention_guided_drop(groups)
    with_empty = attention_guided_drop([*groups, torch.zeros(0, 2, 4, 7, dtype=torch.float64)])
    torch.testing.assert_close(with_empty[:2], wanted)
    assert with_empty[2].shape == (0, 2, 4, 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_get_the_masks_of_float32(dtype):
    halves = feature_maps(dtype)
    dropped = attention_guided_drop(halves)
    exact = attention_guided_drop([x.float() for x in halves])
    for a, b in zip(dropped, exact, strict=True):
        assert a.dtype == dtype and torch.equal(a == 0, b == 0)
        torch.testing.assert_close(a.float(), b, rtol=4 * torch.finfo(dtype).eps, atol=0)
