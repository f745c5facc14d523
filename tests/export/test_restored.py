"""A model of one's own that was accelerated, after `restore`."""

from __future__ import annotations

import pytest
import torch

from msclr.nn import accelerate, restore
from tests.nn.lookalikes import Encoder, clips, graph, trained


def test_a_restored_model_exports_as_it_would_have(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    import onnxruntime

    torch.manual_seed(0)
    model = trained(Encoder(graph(joints=5), widths=(4, 4, 8))).float()
    x = clips(joints=5).float()
    wanted = model(x)
    assert accelerate(model).swapped
    restore(model)
    made = torch.onnx.export(model, (x,), input_names=["x"], dynamo=True, verbose=False)
    assert {node.domain for node in made.model_proto.graph.node} == {""}
    made.save(str(tmp_path / "m.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
