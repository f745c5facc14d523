"""load_pretrained and msclr.load: which encoder of several."""

from __future__ import annotations

import pytest
import torch

import msclr
from msclr import layouts
from msclr.errors import InputError
from msclr.nn import load_pretrained
from tests.nn.lookalikes import Encoder, clips, trained

NAMES = ("encoder_q", "encoder_k", "encoder_q_motion", "encoder_k_motion")


@pytest.fixture(scope="module")
def models():
    """Encoders with different weights, as a checkpoint of CrosSCLR holds them."""
    made = {}
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        made[name] = trained(Encoder(layouts.get("kinectv2_25").adjacency()))
    return made


@pytest.fixture(scope="module")
def state(models):
    return {
        f"{name}.{k}": v for name, model in models.items() for k, v in model.state_dict().items()
    }


@torch.no_grad()
@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_encoder_of_that_name_is_read(name, models, state):
    x = clips()
    ours = load_pretrained(state, encoder=name).encoder
    wanted = models[name or "encoder_q"].features(x)
    torch.testing.assert_close(ours(x), wanted, rtol=1e-10, atol=1e-10)
    others = [n for n in NAMES if n != name]
    apart = [float((ours(x) - models[n].features(x)).abs().max()) for n in others]
    assert max(apart) > 1e-3


def test_a_name_that_is_not_there_lists_those_that_are(state):
    with pytest.raises(InputError, match=r"encoders 'encoder_q\.', .* none is 'encoder_q_bone'"):
        load_pretrained(state, encoder="encoder_q_bone")


def test_the_stream_is_that_of_the_name(state):
    assert msclr.load(state, encoder="encoder_q_motion", device="cpu").stream == "motion"
    assert msclr.load(state, encoder="encoder_q", device="cpu").stream == "joint"
    assert msclr.load(state, encoder="encoder_k_motion", stream="bone").stream == "bone"
