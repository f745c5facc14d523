"""load_pretrained on genuine weights, which are no part of this project."""

from __future__ import annotations

import pytest
import torch

from benchmarks.plain_stgcn import widths
from msclr.nn.pretrained import load_pretrained
from tests.nn.lookalikes import Encoder

FILES = ("ntu60_xview_actclr_joint_linear.pt", "ntu60_xview_aimclr_joint_linear.pt")


@pytest.mark.parametrize("name", FILES)
def test_weights_of_the_aimclr_family_give_the_features_of_a_plain_st_gcn(name, shared_data):
    path = shared_data / "weights" / name
    if not path.is_file():
        pytest.skip(f"no genuine weights: {path} is no file (MSCLR_SHARED_DATA names a folder)")
    state = torch.load(path, weights_only=True)
    state = {key.removeprefix("encoder_q."): value for key, value in state.items()}
    classifier = {key: state.pop(key) for key in ("fc.weight", "fc.bias")}
    plain = Encoder(torch.zeros(3, 25, 25), widths(16)).eval()  # with a head of its own
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert sorted(missing) == sorted(classifier) and not unexpected

    ours, unused = load_pretrained(path)
    assert list(ours.layouts) == ["kinectv2_25"] and ours.strategy == "spatial"
    assert unused == ("encoder_q.fc.weight", "encoder_q.fc.bias")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}

    torch.manual_seed(0)
    steps = 0.05 * torch.randn(4, 3, 50, 25, 2)
    x = 0.3 * torch.randn(4, 3, 1, 25, 2) + steps.cumsum(2)  # metres
    x = x - x[:, :, :, 20:21]  # centred on the spine-shoulder joint, as in their training
    x[1, ..., 1] = 0
    with torch.no_grad():
        single, wanted = ours(x), plain.features(x)
        assert ((single - wanted).norm() / wanted.norm()) < 1e-5
        wanted = plain.double().features(x.double())
        torch.testing.assert_close(ours.double()(x.double()), wanted, rtol=0, atol=1e-6)
    assert wanted.std(0).mean() > 0.01, "features of unlike clips differ"
