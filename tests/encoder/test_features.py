"""Features do not depend on which clips come along, in widths where rounding could show it."""

import torch

from msclr.encoder.features import encode
from msclr.nn import STGCN


def test_a_clip_has_the_same_features_alone_and_among_others():
    torch.manual_seed(0)
    encoder = STGCN(["kinectv2_25"], 16, 256).eval()
    x = torch.randn(70, 2, 50, 25, 3)  # (N, M, T, V, 3)
    bodies = torch.arange(70)[:, None] % 2 >= torch.arange(2)  # one body, two, one ...
    together = encode(encoder, x, bodies, "kinectv2_25", "joint")
    assert together.shape == (70, 256)
    for rows in ([3], [4], [8, 5], list(range(33))):
        alone = encode(encoder, x[rows], bodies[rows], "kinectv2_25", "joint")
        assert alone.equal(together[rows])


def test_no_clips_have_no_features():
    encoder = STGCN(["kinectv2_25"], 2, 8).eval()
    none = encode(encoder, torch.empty(0, 2, 8, 25, 3), torch.empty(0, 2), "kinectv2_25", "bone")
    assert none.shape == (0, 8)
