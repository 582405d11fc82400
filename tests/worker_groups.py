"""Groups of real processes on gloo that compute one step, or hold one state, each in its own way: for tests.

Every function of ``PARTS`` runs in each process of a group and gives what it found; ``in_group`` collects it.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mammofed_shared.config.features import PooledFeatures
from mammofed_shared.config.pretrain import OptimizerSettings
from mammofed_shared.config.sparse_autoencoder import SaeSettings
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.data.features import items_of
from mammofed_shared.losses.contrastive import mvs_loss
from mammofed_shared.models.dual_encoder import LARGEST_LOG_SCALE, DualEncoder
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.text_encoder import TextEncoder
from mammofed_shared.training import sparse_autoencoder, text, zero
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.engine_of import make_engine
from mammofed_shared.training.feature_pass import ensure_features
from mammofed_shared.training.gradient_term import ProximalTerm
from mammofed_shared.training.group import WorkerGroup, shares_of
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.kept import average_buffers, load_moments, save_moments
from mammofed_shared.training.share import Share
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.sparse_autoencoder import SaeTask
from mammofed_shared.training.step import Losses, accumulate_gradients
from report_exams import report_exams

TEXT_ENCODER = Path(__file__).parent.parent / "configs/text_encoder/demo"
ANSWER_WITHIN_S = 120.0


def small_model(
    batch_norm: str = "local",
    *,
    checkpointing: bool = False,
    dropout: float = 0.0,
    moved_by: Mapping[str, Any] | None = None,
) -> DualEncoder:
    """The dual encoder of the demo, with the same weights at every call, or those moved by something."""
    torch.manual_seed(0)
    image = ImageEncoder(
        "mammofed_small_cnn", pooling="avgmax", batch_norm=batch_norm, activation_checkpointing=checkpointing
    )
    for module in image.modules():  # its last gain begins at 0, and so would all gradients before it
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    if dropout:
        image.model.blocks[2].append(nn.Dropout2d(dropout))
    model = DualEncoder(image, TextEncoder(TEXT_ENCODER), 16)
    for name, parameter in model.named_parameters():
        if moved_by is not None and name in moved_by:
            parameter.data += torch.from_numpy(moved_by[name])
    return model


class SmallTask:
    """Multi-view supervision of random images and texts, whose step has ``count`` samples."""

    num_steps = 1

    def __init__(self, model: DualEncoder, group: WorkerGroup, count: int, batch_norm: str = "local") -> None:
        self.model = model
        self._group = group
        self._count = count
        if batch_norm == "sync":
            model.image_encoder.synchronise()

    def share(self, seed: int = 0) -> Share:
        """This process's share."""
        random = np.random.default_rng(seed)
        greys = random.integers(0, 256, (self._count, 2, 32, 32), np.uint8)
        ids = random.integers(5, 100, (self._count, 2, 9))
        sizes = shares_of(self._count, self._group.size)
        first = sum(sizes[: self._group.rank])
        own = slice(first, first + sizes[self._group.rank])
        return Share((greys[own], ids[own], np.ones_like(ids)[own]), sizes, np.arange(self._count) % 2)

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """One step an epoch."""
        yield self.share(seed + epoch)

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        """As the task ``pretrain``."""
        loss = mvs_loss(*outputs[0].unbind(1), *outputs[1].unbind(1), outputs[2][:1].exp())
        return Losses(loss.total, {"loss_image_text": loss.image_text}, loss.rows)

    def after_step(self, engine: Engine) -> None:
        """As the task ``pretrain``."""
        engine.clamp(self.model.log_scale, LARGEST_LOG_SCALE)

    def numbers(self) -> dict[str, float]:
        """Nothing to tell."""
        return {}


def gradients(hardware: Hardware, count: int, batch_norm: str, options: dict[str, Any]) -> dict[str, Any]:
    """Loss, gradients and running statistics after one step without an update."""
    group = WorkerGroup(hardware)
    model = small_model(batch_norm, **options)
    task = SmallTask(model, group, count, batch_norm)
    engine = make_engine(model, group, OptimizerSettings(), "fp32")
    model.train()
    found = accumulate_gradients(task, engine, group, task.share(), "fp32", hardware.micro_batch, seed=1)
    average_buffers(model, group)
    grads = {name: parameter.grad.numpy() for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"losses": found, "grads": grads, "buffers": {name: b.numpy() for name, b in model.named_buffers()}}


def steps(
    hardware: Hardware,
    count: int,
    num_steps: int,
    folder: str,
    start_from: str | None,
    log_scale: float | None = None,
    mu: float = 0.0,
) -> dict[str, Any]:
    """Weights before and after some steps; moments are read from ``start_from`` and written to ``folder``.

    Stage 3 of ZeRO divides every parameter here, however small. ``log_scale`` is the model's in place of its own,
    ``mu`` FedProx's.
    """
    zero.KEPT_WHOLE = 0
    group = WorkerGroup(hardware)
    model = small_model("frozen")
    if log_scale is not None:
        model.log_scale.data.fill_(log_scale)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    task = SmallTask(model, group, count)
    engine = make_engine(model, group, OptimizerSettings(), "fp32", ProximalTerm(model, mu) if mu else None)
    if start_from is not None:
        load_moments(Path(start_from), model, shapes, engine)
    before = {name: array.copy() for name, array in engine.weights().items()}
    norms = []
    model.train()
    for number in range(num_steps):
        accumulate_gradients(task, engine, group, task.share(number), "fp32", hardware.micro_batch, seed=number)
        norms.append(engine.step(1e-3))
        task.after_step(engine)
    save_moments(Path(folder) / "moments.safetensors", engine, group)
    return {"before": before, "after": engine.weights(), "norms": norms, "num_steps": engine.num_steps}


def text_steps(hardware: Hardware, num_steps: int) -> dict[str, Any]:
    """Weights after some steps of text adaptation on 9 reports."""
    zero.KEPT_WHOLE = 0
    group = WorkerGroup(hardware)
    settings = TextSettings.model_validate(
        {"text_encoder": {"weights": "none", "activation_checkpointing": False}, "batch_size": 9, "precision": "fp32"}
    )
    torch.manual_seed(0)
    model = text.build_model(settings, TEXT_ENCODER, False)
    task = text.TextTask(settings, model, SiteData(report_exams(9), ("one",), TEXT_ENCODER, 2), group)
    engine = make_engine(model, group, OptimizerSettings(), "fp32")
    model.train()
    for epoch in range(num_steps):
        share = next(task.shares(1, epoch, 0))
        accumulate_gradients(task, engine, group, share, "fp32", hardware.micro_batch, seed=epoch)
        engine.step(1e-4)
    return engine.weights()


def sparse_steps(hardware: Hardware, settings: SaeSettings, data: SiteData, num_steps: int) -> dict[str, Any]:
    """Weights and counters after some steps of a sparse autoencoder, each the first of an epoch.

    Half of the neurons are silent from the beginning on.
    """
    group = WorkerGroup(hardware)
    torch.manual_seed(0)
    task = SaeTask(settings, sparse_autoencoder.build_model(settings, None, False), data, group)
    task.model.encoder_bias.data[::2] = -1000.0
    engine = make_engine(task.model, group, settings.optimizer, "fp32")
    task.model.train()
    for epoch in range(num_steps):
        task.begin_epoch(1, epoch)
        share = next(task.shares(1, epoch, 0))
        accumulate_gradients(task, engine, group, share, "fp32", hardware.micro_batch, seed=epoch)
        engine.step(1e-3)
        task.after_step(engine)
    return engine.weights()


def dtypes_on_a_gpu(hardware: Hardware) -> list[str]:
    """Type of the projected images in bf16, for whoever asks as on a GPU whether there is autocast."""
    is_enabled = torch.is_autocast_enabled
    torch.is_autocast_enabled = lambda device="cpu": is_enabled(device)  # without an argument torch means the GPU
    group = WorkerGroup(hardware)
    model = small_model("frozen")
    found: list[str] = []
    model.image_projection.register_forward_hook(lambda module, inputs, output: found.append(str(output.dtype)))
    task = SmallTask(model, group, 4)
    engine = make_engine(model, group, OptimizerSettings(), "bf16")
    accumulate_gradients(task, engine, group, task.share(), "bf16", None, seed=1)
    return found


def features(hardware: Hardware, data: SiteData) -> dict[str, Any]:
    """How many pooled features this process has computed, and all of them as it reads them then."""
    group = WorkerGroup(hardware)
    counted = [0]

    def report(done: int, total: int) -> None:
        counted[0] = done

    ensure_features(PooledFeatures(), data, group, report)
    items = items_of(PooledFeatures(), data.exams)
    return {"computed": counted[0], "read": data.features(PooledFeatures(), group.device).read(items)}


PARTS = {
    "gradients": gradients,
    "steps": steps,
    "text_steps": text_steps,
    "sparse_steps": sparse_steps,
    "dtypes_on_a_gpu": dtypes_on_a_gpu,
    "features": features,
}


def in_group(hardware: Hardware, folder: Path, part: str, *args: Any) -> list[Any]:
    """What each process of a group of ``hardware.num_processes`` gives for a part, in the order of rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    rendezvous = folder / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    processes, connections = [], []
    for rank in range(hardware.num_processes):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_run, args=(theirs, hardware, rank, str(rendezvous), part, args)))
        processes[-1].start()
        theirs.close()
        connections.append(ours)
    try:
        return [_answer(connection) for connection in connections]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _run(connection: Connection, hardware: Hardware, rank: int, rendezvous: str, part: str, args: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    place = {"rank": rank, "rendezvous": rendezvous}
    values = {name: getattr(hardware, name) for name in Hardware.__dataclass_fields__}
    connection.send(PARTS[part](Hardware(**values | place), *args))
    connection.recv()  # stay until all have answered: the others may still want to talk


def _answer(connection: Connection) -> Any:
    assert connection.poll(ANSWER_WITHIN_S), "a process of the group said nothing"
    return connection.recv()
