"""Batch normalisation in training: what its statistics are taken over, and that each sample moves them once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import timm.layers
import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from torch import Tensor, nn

BatchNormMode = Literal["local", "sync", "frozen"]
"""``local``: statistics of what one process computes at once; ``sync``: of what all processes compute at once;
``frozen``: the running statistics, which never move."""


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Every batch normalisation of a model."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return cast(list[nn.BatchNorm2d], norms)


def synchronise(model: nn.Module) -> nn.Module:
    """The model with statistics over all processes of the group; names and values of its state stay.

    On GPUs torch's own layer, which has no other. On CPUs ours, by the same formulas.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return model
    if next(model.parameters()).device.type == "cuda":
        return cast(nn.Module, cast(Any, timm.layers).convert_sync_batchnorm(model))
    for module in batch_norms(model):
        module.__class__ = _synchronised(type(module))  # type: ignore[assignment]  # a class made here, of its own
    return model


def _synchronised(kind: type[nn.Module]) -> type[nn.Module]:
    """A layer class that normalises over all processes, then does what the original does after that."""

    class Synchronised(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return cast(Tensor, super().forward(x))
            x = _normalise_together(cast(nn.BatchNorm2d, self), x)
            for after in ("drop", "act"):  # timm's BatchNormAct2d
                x = getattr(self, after)(x) if hasattr(self, after) else x
            return x

    return Synchronised


def _normalise_together(layer: nn.BatchNorm2d, x_BCHW: Tensor) -> Tensor:
    # Mean first, then variance about it: the difference of two large sums would lose digits.
    wide_BCHW = x_BCHW.float()
    count = wide_BCHW.new_tensor(float(x_BCHW.numel() // x_BCHW.shape[1]))
    dist.all_reduce(count)
    mean_C = _sum_over_processes(wide_BCHW.sum(dim=(0, 2, 3))) / count
    centred = wide_BCHW - mean_C[None, :, None, None]
    var_C = _sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked += 1
    with torch.no_grad():
        momentum = 0.0 if layer.momentum is None else layer.momentum
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean.lerp_(mean_C, momentum)
        layer.running_var.lerp_(var_C * (count / (count - 1)), momentum)
    scale_C = torch.rsqrt(var_C + layer.eps) * layer.weight
    return (centred * scale_C[None, :, None, None] + layer.bias[None, :, None, None]).to(x_BCHW.dtype)


def _sum_over_processes(values: Tensor) -> Tensor:
    """With gradient, which flows back to every process."""
    return cast(Tensor, cast(Any, torch.distributed.nn.functional).all_reduce(values))


class StatisticsGuard:
    """Lets each sample move the running statistics of a model once, however often it is computed.

    A pass with a graph may be computed twice: by activation checkpointing in its backward pass, which is outside
    ``computing``; and by a step in chunks, which says so by ``replaying``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._is_computing = False
        self.is_replaying = False
        # All is done before a layer runs: checkpointing may leave a layer in its midst, so nothing after it is sure.
        self._hooks = [module.register_forward_pre_hook(self._before(module.momentum)) for module in batch_norms(model)]

    def remove(self) -> None:
        """Guard no more."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A forward pass stands in here."""
        self._is_computing = True
        try:
            yield
        finally:
            self._is_computing = False

    def _before(self, momentum: float | None) -> Any:
        def before(module: nn.Module, _: object) -> None:
            assert isinstance(module, nn.modules.batchnorm._BatchNorm)
            is_again = module.training and (self.is_replaying or not self._is_computing)
            module.momentum = 0.0 if is_again else momentum
            if is_again and module.num_batches_tracked is not None:
                module.num_batches_tracked -= 1  # the layer adds it again

        return before


@contextmanager
def replaying(model: nn.Module) -> Iterator[None]:
    """Passes in here repeat earlier ones: no running statistic of the model moves."""
    guards = [
        guard for module in model.modules() if isinstance(guard := getattr(module, "statistics", None), StatisticsGuard)
    ]
    for guard in guards:
        guard.is_replaying = True
    try:
        yield
    finally:
        for guard in guards:
            guard.is_replaying = False
