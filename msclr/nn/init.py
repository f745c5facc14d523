"""Weight initialisation of ST-GCN's code, which AimCLR and MS-CLR keep."""

from __future__ import annotations

from torch import nn


def init_weights(module: nn.Module) -> None:
    """Convolutions and linear layers N(0, 0.02), batch norm weights N(1, 0.02), biases 0.

    For ``model.apply(init_weights)``; draws from torch's default generator.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
