"""DeepSpeed's ZeRO by ``accelerate``: the processes of a group divide moments (1), gradients too (2), weights too (3).

Weights stay in full precision and autocast does the rest, so that what leaves a site is the same on every hardware.
What is kept at the site is whole, too: a site may change its hardware between two visits, or in the middle of one.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from mammofed_shared.training.engine import Moments
from mammofed_shared.training.group import PATIENCE, WorkerGroup
from mammofed_shared.training.optim import make_adamw, set_learning_rate
from mammofed_shared.training.state import exchanged_arrays

KEPT_WHOLE = 100_000
"""Values of a parameter below which stage 3 does not divide it (DeepSpeed's default)."""
_KEYS = ("exp_avg", "exp_avg_sq")


class ZeroEngine:
    """An ``Engine`` whose processes each hold a part.

    Args:
        model: whole, with the weights to start from; in stage 3 only a part of them is left here.
        stage: 1, 2 or 3.
    """

    def __init__(
        self, model: nn.Module, group: WorkerGroup, *, weight_decay: float, clip_norm: float, stage: int
    ) -> None:
        self._model = model
        self._group = group
        self._stage = stage
        self._shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        accelerator = _accelerator(group, stage, clip_norm)
        self._engine, _ = accelerator.prepare(model, make_adamw(model, weight_decay))
        self._wrapper: Any = accelerator.deepspeed_engine_wrapped
        # Else transformers would divide the next model that this process makes: the whole one that is validated.
        cast(Any, unset_hf_deepspeed_config)()
        self._is_last = False
        self._begin_moments()

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As ``Engine``."""
        return cast(tuple[Tensor, ...], self._engine(*inputs))

    def scaled(self, loss: Tensor) -> Tensor:
        """As ``Engine``; fp16 is refused with ZeRO."""
        return loss

    def chunk(self, *, is_last: bool) -> AbstractContextManager[None]:
        """As ``Engine``."""
        return self._chunk(is_last)

    @contextmanager
    def _chunk(self, is_last: bool) -> Iterator[None]:
        self._is_last = is_last
        yield

    def backward(self, loss: Tensor) -> None:
        """As ``Engine``."""
        self._engine.set_gradient_accumulation_boundary(is_boundary=self._is_last)
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> float:
        """As ``Engine``."""
        set_learning_rate(self._engine.optimizer, learning_rate)
        self._engine.step()
        return float(self._wrapper.get_global_grad_norm())

    def weights(self) -> dict[str, NDArray[Any]]:
        """As ``Engine``."""
        from deepspeed.utils import safe_get_full_fp32_param

        if self._stage < 3:
            return exchanged_arrays(self._model)
        own = dict(self._model.named_buffers())
        persistent = self._model.state_dict()
        whole = {
            name: safe_get_full_fp32_param(parameter).detach().cpu().numpy().reshape(self._shapes[name])
            for name, parameter in self._model.named_parameters()
        }
        return {name: whole[name] if name in whole else own[name].cpu().numpy() for name in persistent}

    def moments(self) -> Iterator[Moments]:
        """As ``Engine``."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self.num_steps:
            return
        for name, parameter in self._trained():
            first, second = (
                safe_get_full_optimizer_state(parameter, key).cpu().numpy().reshape(self._shapes[name]) for key in _KEYS
            )
            yield Moments(name, first, second)

    @property
    def num_steps(self) -> float:
        """As ``Engine``."""
        return max((float(state["step"]) for state in self._base.state.values()), default=0.0)

    def set_moments(self, kept: Mapping[str, Moments], num_steps: float) -> None:
        """As ``Engine``."""
        for state in self._base.state.values():
            state["step"].fill_(num_steps)
        for name, parameter in self._trained():
            for key, value in zip(_KEYS, (kept[name].first, kept[name].second), strict=True):
                self._set(parameter, key, torch.from_numpy(value.copy()).to(self._group.device))

    def _begin_moments(self) -> None:
        """Moments of 0, as AdamW makes them at its first step. DeepSpeed ties parameters to their places in them after
        the first step of its first group, when the second group has none yet, and never again."""
        zero = self._engine.optimizer
        for part in zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups:
            step = torch.zeros((), dtype=torch.float32, device=part.device)
            self._base.state[part] = {"step": step} | {key: torch.zeros_like(part) for key in _KEYS}
        if self._stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, item) for name, item in self._model.named_parameters() if item.requires_grad)

    def _set(self, parameter: nn.Parameter, key: str | None, whole: Tensor) -> None:
        """Set a moment of a parameter, or (None) what the optimizer steps from."""
        from deepspeed import utils

        if self._stage < 3:
            if key is None:
                utils.safe_set_full_fp32_param(parameter, whole)
            else:
                utils.safe_set_full_optimizer_state(parameter, whole, key)
            return
        # Each process's part, the last one padded with zeros, as DeepSpeed lays parameters out.
        length = -(-whole.numel() // self._group.size)
        flat = F.pad(whole.flatten(), (0, length * self._group.size - whole.numel()))
        own = flat[self._group.rank * length :][:length]
        if key is None:
            utils.safe_set_local_fp32_param(parameter, own)
        else:
            utils.safe_set_local_optimizer_state(parameter, own, key)

    @torch.no_grad()
    def clamp(self, parameter: nn.Parameter, largest: float) -> None:
        """As ``Engine``: the optimizer steps from a copy of its own, and the model computes with another."""
        from deepspeed.utils import safe_get_full_fp32_param

        whole = safe_get_full_fp32_param(parameter)
        if bool((whole > largest).any()):
            self._set(parameter, None, whole.clamp(max=largest))
        parameter.data.clamp_(max=largest)

    @property
    def loss_scale(self) -> float:
        """As ``Engine``."""
        return 1.0

    def scaler_state(self) -> dict[str, float]:
        """As ``Engine``; there is no scale."""
        return {}

    def set_scaler_state(self, state: Mapping[str, float]) -> None:
        """As ``Engine``; there is no scale."""

    @property
    def _base(self) -> torch.optim.Optimizer:
        return cast(torch.optim.Optimizer, self._engine.optimizer.optimizer)


def _accelerator(group: WorkerGroup, stage: int, clip_norm: float) -> Any:
    is_cpu = group.device.type == "cpu"
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    os.environ["LOCAL_SIZE"] = str(group.size)
    if is_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    for talkative in ("DeepSpeed", "compilers"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    # Imported here: it takes seconds, and asks at once which accelerator there is.
    import deepspeed
    import deepspeed.runtime.engine
    from accelerate import Accelerator
    from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs

    # Precision is the step's affair. On a GPU DeepSpeed would switch off an autocast that it has not switched on.
    deepspeed.runtime.engine.autocast_if_enabled = lambda engine: nullcontext()
    # A faster sum between CPUs, which it would compile for minutes on first use. ZeRO on CPUs serves tests.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    plugin = DeepSpeedPlugin(
        hf_ds_config={
            "train_micro_batch_size_per_gpu": 1,  # asked for; batches are ours
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip_norm,
            "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": KEPT_WHOLE},
            "zero_allow_untested_optimizer": True,  # torch's AdamW, as on every other hardware
            "zero_force_ds_cpu_optimizer": False,
        }
    )
    backend = InitProcessGroupKwargs(backend="gloo" if is_cpu else "nccl", timeout=PATIENCE)
    return Accelerator(mixed_precision="no", deepspeed_plugin=plugin, kwargs_handlers=[backend])
