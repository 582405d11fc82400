"""The task ``pretrain``: image–text pretraining of Mammo-FM.

Shapes: B samples, H rows, W columns, T tokens.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.config.pretrain import AugmentationSettings, PretrainSettings
from mammofed_shared.data.augment import Ranges
from mammofed_shared.data.batches import epoch_batches, loaded_ahead, num_batches
from mammofed_shared.data.image_text import breast_samples, image_pair, require_training_data, stack_greys
from mammofed_shared.data.text_pair import text_pair
from mammofed_shared.exam import Split
from mammofed_shared.losses.contrastive import mvs_loss
from mammofed_shared.models.dual_encoder import LARGEST_LOG_SCALE, DualEncoder
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.text_encoder import TextEncoder
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.group import WorkerGroup, shares_of
from mammofed_shared.training.share import Share
from mammofed_shared.training.site_data import SiteData, require_shares
from mammofed_shared.training.step import Losses


def build_model(settings: PretrainSettings, text_encoder: Path, pretrained: bool) -> DualEncoder:
    """The dual encoder of a run.

    Args:
        text_encoder: folder with configuration, tokenizer and weights.
        pretrained: start from the weights that the settings name; else from random ones, to be overwritten.
    """
    image = settings.image_encoder
    text = settings.text_encoder
    return DualEncoder(
        ImageEncoder(
            image.name,
            weights=image.weights if pretrained else "none",
            pooling=image.pooling,
            activation_checkpointing=image.activation_checkpointing,
            batch_norm=image.batch_norm,
        ),
        TextEncoder(
            text_encoder,
            pretrained=pretrained and text.weights == "folder",
            activation_checkpointing=text.activation_checkpointing,
            pooling=text.pooling,
        ),
        settings.projection_dim,
    )


class PretrainTask:
    """Model, loss and the data of one site, as one process of the worker group has them.

    Args:
        model: as ``build_model`` gives it, on the device.
        data: exams of the split ``train`` that have images and a text are used.

    Raises:
        VisitFailed: NO_DATA, with fewer than two exams; SETTINGS, with fewer samples in a batch than processes.
    """

    def __init__(self, settings: PretrainSettings, model: DualEncoder, data: SiteData, group: WorkerGroup) -> None:
        self.settings = settings
        self.model = model
        self.samples = breast_samples(data.exams, Split.TRAIN)
        require_training_data(self.samples)
        require_shares(len(self.samples), self.num_steps, group.size)
        self._data = data
        self._group = group
        self._tokenizer = data.tokenizer(settings.text_encoder.max_tokens)
        self._translations = data.translations()
        self._number_of = data.told_numbers(sample.exam for sample in self.samples)
        self._ranges = ranges_of(settings.augmentation)
        if settings.image_encoder.batch_norm == "sync":
            model.image_encoder.synchronise()
        if group.hardware.compile:
            model.image_encoder.compile_encoder()
            model.text_encoder.compile_encoder()

    @property
    def num_exams(self) -> int:
        """Exams that training uses."""
        return len({(sample.exam.dataset, sample.exam.exam) for sample in self.samples})

    @property
    def num_steps(self) -> int:
        """Steps of one epoch."""
        return num_batches(self.samples, self.settings.batch_size)

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """This process's shares of an epoch, read ahead by threads."""
        order = epoch_batches(self.samples, self.settings.batch_size, np.random.default_rng([seed, epoch]))
        loading = [partial(self._load, tuple(indices), seed, epoch) for indices in order[start:]]
        return loaded_ahead(loading, self._data.loaders)

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        """Multi-view supervision of all samples of a step, in full precision: bf16 loses the last digits of logits."""
        image_B2D, text_B2D, log_scale_B = outputs
        loss = mvs_loss(
            image_B2D[:, 0],
            image_B2D[:, 1],
            text_B2D[:, 0],
            text_B2D[:, 1],
            log_scale_B[:1].exp(),
            variant=self.settings.loss.variant,
            text_text_weight=self.settings.loss.text_text_weight,
        )
        parts = {
            "loss_image_text": loss.image_text,
            "loss_image_image": loss.image_image,
            "loss_text_text": loss.text_text,
            "temperature": torch.exp(-log_scale_B[:1]),
        }
        return Losses(loss.total, parts, loss.rows)

    def after_step(self, engine: Engine) -> None:
        """Hold the temperature in its range."""
        engine.clamp(self.model.log_scale, LARGEST_LOG_SCALE)

    def numbers(self) -> dict[str, float]:
        """Numbers of the task after training, as they may leave the site."""
        return {"num_exams": float(self.num_exams)}

    def _load(self, indices: tuple[int, ...], seed: int, epoch: int) -> Share:
        sizes = shares_of(len(indices), self._group.size)
        first = sum(sizes[: self._group.rank])
        pairs: list[NDArray[np.uint8]] = []
        texts: list[str] = []
        for index in indices[first : first + sizes[self._group.rank]]:
            sample = self.samples[index]
            # A generator of its own for each sample: what it draws depends on no other sample, thread or process.
            random = np.random.default_rng([seed, epoch, index])
            natural = self.settings.augmentation.natural_view
            pairs += image_pair(sample, self._ranges, random, natural_view=natural)
            texts += text_pair(sample.exam, random, self._translations)
        tokens = self._tokenizer(texts)
        greys = stack_greys(pairs)
        datasets = [self._number_of[self.samples[index].exam.dataset] for index in indices]
        return Share(
            inputs=tuple(array.reshape(-1, 2, *array.shape[1:]) for array in (greys, tokens.ids, tokens.mask)),
            sizes=sizes,
            datasets=np.array(datasets, np.int64),
            # Told of the first epoch, so that a text counts once.
            counts={"num_texts_cut": tokens.num_cut} if epoch == 0 else {},
        )


def ranges_of(settings: AugmentationSettings) -> Ranges:
    """The settings of the synthetic view as plain numbers."""
    return Ranges(
        flip_probability=settings.flip_probability,
        rotation_deg=settings.rotation_deg,
        translation=settings.translation,
        scale=settings.scale,
        shear_deg=settings.shear_deg,
        elastic_alpha_px=settings.elastic_alpha,
        elastic_sigma_px=settings.elastic_sigma,
    )
