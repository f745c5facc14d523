"""The blocks of other projects that run whole: ST-GCN's and pyskl's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msclr.kernels import PackedRows
from msclr.nn.accelerate.graph_convs import TakesGraph
from msclr.nn.accelerate.swapping import Swapped, moved_to_channels_last, names
from msclr.nn.accelerate.trial import difference_of_block, normal
from msclr.nn.fused import BlockParts, can_fuse, hooked, misfit, run_fused
from msclr.nn.graph_conv import Graph
from msclr.nn.operands import advance, operands_of_block

# What tcn is in ST-GCN.
_SEQUENTIAL = (nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.Dropout)


def block_form_of(module: nn.Module) -> tuple[type[Block] | None, str]:
    """The form that a block around a swapped graph convolution is of; None, and why it is not."""
    forms = (_STGCN, _STGCNWithout) if isinstance(module.gcn, TakesGraph) else (_Pyskl,)
    reason = ""
    for form in forms:
        reason = _misfit_of(module, form) or difference_of_block(module, form)
        if not reason:
            return form, ""
    return None, reason


def _misfit_of(module: nn.Module, form: type[Block]) -> str | None:
    extra = names(module) - {"gcn", "tcn", "residual", "relu"}
    if extra:
        return f"holds {', '.join(sorted(extra))} besides gcn, tcn, residual and relu"
    if not isinstance(getattr(module, "tcn", None), nn.Module):
        return "has no tcn"
    conv = module.gcn.conv
    try:  # a residual may be any function
        parts = form.parts(module, conv.weight.new_zeros(2, conv.in_channels, 5, 5))
    except Exception as error:
        return f"could not be tried: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if isinstance(parts, str):
        return parts
    at = hooked(module)
    return misfit(parts) or (f"{at} has hooks or a forward of its own" if at else None)


class Block(Swapped):
    """A swapped block; ``gcn`` is a swapped graph convolution.

    Its parts are looked up in each call, so what was exchanged or hooked since is respected.
    """

    identity_counts = True  # whether a residual that is nn.Identity is added

    def _run(self, x: object, adjacency: object, support: Tensor | None) -> Tensor | None:
        """y by the fused operator, or None where it cannot."""
        if not self.gcn._runs_on_kernel(x, adjacency) or torch.compiler.is_exporting():
            return None  # the operator takes sizes as constants, and an export may leave them open
        parts = self.parts(self, x)
        if isinstance(parts, str) or not can_fuse(self, parts, x, [adjacency]):
            return None
        stays_contiguous = not moved_to_channels_last(parts.time_conv.weight)
        if stays_contiguous and not _left_a_block(x):
            x = _Enters.apply(x)
        rows = PackedRows.of([x])
        if -(-x.shape[2] // parts.time_conv.stride[0]) * x.shape[0] * x.shape[3] < 2:
            return None  # no rows, or an error that is the norms' to raise
        operands = operands_of_block([Graph(adjacency, support)], parts.norms)
        (y,) = run_fused(parts, rows, operands).groups()
        advance([parts.norms], operands.moments)
        # As at a graph convolution: what is around the blocks of an NCHW model was never run on
        # anything else, forward or backward.
        return _Leaves.apply(y) if stays_contiguous else y

    def _pays(self, x: object) -> bool:
        """Whether running whole is worth while; the trial of a form does not ask."""
        return not torch.is_tensor(x) or not too_small(x[:, :1].numel(), self.width())

    @classmethod
    def _parts(cls, block: nn.Module, x: Tensor, partitions: int, *modules) -> BlockParts | str:
        relu = getattr(block, "relu", None)
        if isinstance(relu, nn.Module) and type(relu) is not nn.ReLU:
            return f"relu is {type(relu).__name__}"
        residual = _residual(block, x, cls.identity_counts)
        if isinstance(residual, str):
            return residual
        return BlockParts(block.gcn.conv, partitions, *modules, *residual)


class _STGCN(Block):
    """ST-GCN's: ``forward(x, A) -> (relu(tcn(gcn(x, A)) + residual(x)), A)``."""

    def width(self) -> int:
        return self.gcn.conv.out_channels // self.gcn.kernel_size

    @classmethod
    def parts(cls, block: nn.Module, x: Tensor) -> BlockParts | str:
        """What the block is made of; or why it is not of this form."""
        tcn = block.tcn
        steps = list(tcn) if type(tcn) is nn.Sequential else []
        if tuple(type(step) for step in steps) not in (_SEQUENTIAL, _SEQUENTIAL[:4]):
            return "tcn is not Sequential(BatchNorm2d, ReLU, Conv2d, BatchNorm2d, Dropout)"
        norm, _, conv, last_norm, *dropout = steps
        gcn, dropout = block.gcn, dropout[0] if dropout else None
        return cls._parts(block, x, gcn.kernel_size, norm, conv, last_norm, dropout)

    @staticmethod
    def trial(block: nn.Module, generator: torch.Generator) -> tuple[Tensor, ...]:
        x = normal((2, block.gcn.conv.in_channels, 5, 5), generator)
        return x, normal((block.gcn.kernel_size, 5, 5), generator)

    def whole(self, x: object, adjacency: object) -> Tensor | None:
        if not torch.is_tensor(adjacency) or len(adjacency) != self.gcn.kernel_size:
            return None
        return self._run(x, adjacency, self.gcn._support(adjacency))

    def forward(self, *args, **kwargs):
        y = self.whole(*args) if len(args) == 2 and not kwargs and self._pays(args[0]) else None
        return super().forward(*args, **kwargs) if y is None else (y, args[1])


class _STGCNWithout(_STGCN):
    """The same, where an ``nn.Identity`` as residual is not added."""

    identity_counts = False


class _Pyskl(Block):
    """pyskl's: ``forward(x) -> relu(tcn(gcn(x)) + residual(x))``, with the graph in ``gcn``."""

    def width(self) -> int:
        return self.gcn.bn.num_features

    @classmethod
    def parts(cls, block: nn.Module, x: Tensor) -> BlockParts | str:
        """What the block is made of; or why it is not of this form."""
        gcn, tcn = block.gcn, block.tcn
        if gcn.with_res:
            return "gcn has a residual of its own"
        if type(gcn.act) is not nn.ReLU:
            return f"gcn's activation is {type(gcn.act).__name__}, only ReLU is fused"
        steps = _unit(tcn)
        if isinstance(steps, str):
            return f"tcn {steps}"
        return cls._parts(block, x, len(gcn.A), gcn.bn, *steps)

    @staticmethod
    def trial(block: nn.Module, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (normal((2, block.gcn.conv.in_channels, 5, block.gcn.A.shape[-1]), generator),)

    def whole(self, x: object) -> Tensor | None:
        return self._run(x, *self.gcn._graph())

    def forward(self, *args, **kwargs):
        fits = not kwargs and (len(args) == 1 or args[1:] == (None,))
        y = self.whole(args[0]) if fits and self._pays(args[0]) else None
        return super().forward(*args, **kwargs) if y is None else y


def too_small(rows: int, channels: int) -> bool:
    """Whether the work does not pay for its preparation, about a millisecond per block.

    One clip of 50 frames, in ST-GCN of width 16, is; two clips, or one in width 64, pay. In wide
    layers the weights are prepared for each call, which a few rows do not earn. Measured with
    AVX-512, in eval and in train mode alike.
    """
    return rows * channels < 30_000 or rows < 4 * channels


class _Enters(torch.autograd.Function):
    """x as it is, and a contiguous gradient."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


class _Leaves(torch.autograd.Function):
    """A contiguous y, and its gradient as it comes."""

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.contiguous()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def _left_a_block(x: Tensor) -> bool:
    """Whether the gradient of x goes to a swapped block, to which its memory format is all one."""
    if torch.compiler.is_compiling() or x.grad_fn is None:
        return not x.requires_grad
    return x.grad_fn.name() == "_LeavesBackward"


def _residual(
    block: nn.Module, x: Tensor, identity_counts: bool
) -> tuple[bool, nn.Module | None, nn.Module | None] | str:
    """Whether there is a residual, its convolution and its norm; or why none of these is it."""
    residual = getattr(block, "residual", None)
    if residual is None:
        return False, None, None
    if type(residual) is nn.Identity:
        return identity_counts, None, None
    if isinstance(residual, nn.Module):
        unit = list(residual) if type(residual) is nn.Sequential else _unit(residual)
        if len(unit) == 3 and isinstance(unit[2], (nn.Dropout, nn.Identity, type(None))):
            if getattr(unit[2], "p", 0) > 0:
                return "its residual has dropout"
            unit = unit[:2]
        if isinstance(unit, str) or len(unit) != 2:
            return "its residual is neither nothing, x, nor a convolution with BatchNorm2d"
        return True, *unit
    given = residual(x)  # a function: ST-GCN's are `lambda x: 0` and `lambda x: x`
    if given is x:
        return True, None, None
    if isinstance(given, (int, float)) and given == 0:
        return False, None, None
    return "its residual is a function that gives neither 0 nor x"


def _unit(module: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module | None] | str:
    """Convolution, norm and dropout of pyskl's ``unit_tcn``; or why it is none."""
    children = dict(module.named_children())
    extra = names(module) - {"conv", "bn", "drop"}
    if extra or not {"conv", "bn"} <= children.keys():
        return f"is not pyskl's unit_tcn: it holds {', '.join(sorted(names(module)))}"
    return children["conv"], children["bn"], children.get("drop")
