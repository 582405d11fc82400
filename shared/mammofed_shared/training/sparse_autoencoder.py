"""The task ``sae``: the Matryoshka sparse autoencoder over patches of the frozen encoder (paper, Interpreting the risk
using SAE).

Shapes: B patches of a step, C channels.
"""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.config.sparse_autoencoder import SaeSettings
from mammofed_shared.data.batches import epoch_batches, loaded_ahead, num_batches
from mammofed_shared.data.patches import image_samples, patch_rows
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.exam import Split
from mammofed_shared.losses.sparsity import sparsity_loss
from mammofed_shared.models.dead_neurons import dead_neurons, mixed_directions, revive
from mammofed_shared.models.nested_codes import EVERY_LEVEL, turns_of
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.group import WorkerGroup, shares_of
from mammofed_shared.training.share import Share
from mammofed_shared.training.site_data import SiteData, require_shares
from mammofed_shared.training.step import Losses, step_seed

logger = logging.getLogger(__name__)


def build_model(settings: SaeSettings, text_encoder: Path | None, pretrained: bool) -> SparseAutoencoder:
    """The autoencoder of a run; it begins with random weights and has no text encoder."""
    return SparseAutoencoder(settings.encoder_features, settings.num_neurons, settings.levels)


class SaeTask:
    """Autoencoder, loss and the patches of one site, as one process of the worker group has them.

    Raises:
        VisitFailed: NO_DATA, with fewer than two images; SETTINGS, with fewer images in a step than processes, or where
            processes divide the weights.
    """

    def __init__(self, settings: SaeSettings, model: SparseAutoencoder, data: SiteData, group: WorkerGroup) -> None:
        if group.hardware.distribution.startswith("zero"):
            raise VisitFailed(
                RefusalCode.SETTINGS,
                f"worker.distribution is {group.hardware.distribution}, whose processes hold parts of the weights; the "
                "task sae makes neurons anew in whole ones: set worker.distribution to none or ddp",
            )
        self.settings = settings
        self.model = model
        self._samples = image_samples(exam for exam in data.exams if exam.split is Split.TRAIN)
        if len(self._samples) < 2:
            raise VisitFailed(
                RefusalCode.NO_DATA,
                f"training needs at least 2 images of exams in the split train, found {len(self._samples)}",
            )
        require_shares(len(self._samples), self.num_steps, group.size)
        self._features = data.features(settings.features, group.device)
        self._loaders = data.loaders
        self._num_mixed = data.least_cell
        self._group = group
        self._number_of = data.told_numbers(sample.exam for sample in self._samples)

    @property
    def num_steps(self) -> int:
        """Steps of one epoch."""
        return num_batches(self._samples, self.settings.images_per_step)

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Give a new autoencoder its bias, count the epoch that has passed for each neuron, and make dead ones anew.

        All processes do it alike, from the patches of the epoch's first step.
        """
        if not bool(self.model.pre_bias.any()):  # no training leaves every value at 0
            self._centre(seed, epoch)
        if self.settings.dead_after_epochs:
            self.model.begin_epoch()
            self._revive(seed, epoch)

    def _centre(self, seed: int, epoch: int) -> None:
        """Begin with the mean of patches as the bias, as Bricken et al. 2023 with their median: at the paper's learning
        rate it would take thousands of steps to come there, and half of the neurons would stand for it meanwhile."""
        features_BC, patients = self._first_step(seed, epoch)
        if len(set(patients)) >= self._num_mixed:
            with torch.no_grad():
                self.model.pre_bias.copy_(features_BC.mean(dim=0))

    def _revive(self, seed: int, epoch: int) -> None:
        """The moments of a dead neuron, which had no gradient for epochs, have faded: they are left as they are."""
        dead_R = dead_neurons(self.model.heard, self.settings.dead_after_epochs)
        if not len(dead_R):
            return
        features_BC, patients = self._first_step(seed, epoch)
        direction_RC = mixed_directions(
            features_BC - self.model.pre_bias.detach(),
            self.model.errors(features_BC)[:, -1],
            patients,
            len(dead_R),
            num_mixed=self._num_mixed,
            seed=step_seed(seed, epoch, -1),
        )
        revive(self.model, dead_R[: len(direction_RC)], direction_RC)
        logger.info("epoch %d: %d neurons were dead, %d are made anew", epoch, len(dead_R), len(direction_RC))

    def _first_step(self, seed: int, epoch: int) -> tuple[Tensor, list[str]]:
        """All patches of the epoch's first step, and whose they are."""
        samples = [self._samples[index] for index in self._order(seed, epoch)[0]]
        features_BC = torch.from_numpy(patch_rows(self._features, samples)).to(self._group.device)
        return features_BC, [sample.exam.patient for sample in samples for _ in range(self.settings.patches_per_image)]

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """This process's shares of an epoch, read ahead by threads."""
        loading = [partial(self._load, tuple(indices)) for indices in self._order(seed, epoch)[start:]]
        return loaded_ahead(loading, self._loaders)

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        """Mean over the patches of a step."""
        error_B, sum_B, power_B = outputs[0].unbind(dim=1)
        loss = self.settings.loss
        rows_B = sparsity_loss(error_B, sum_B, power_B, variant=loss.variant, l1_weight=loss.l1_weight)
        parts = {"relative_error": error_B.sum() / power_B.sum().clamp(min=1e-8), "code_l1": sum_B.mean()}
        return Losses(rows_B.mean(), parts, rows_B)

    def after_step(self, engine: Engine) -> None:
        """Note which neurons fired in any process."""
        if self.settings.dead_after_epochs:
            own_1N = self.model.fired[None].to(torch.uint8)
            self.model.note_fired(self._group.gather_rows(own_1N, [1] * self._group.size).amax(dim=0) > 0)

    def numbers(self) -> dict[str, float]:
        """Numbers of the task after training, as they may leave the site."""
        told = {"num_exams": float(len({(sample.exam.dataset, sample.exam.exam) for sample in self._samples}))}
        if self.settings.dead_after_epochs:
            told["silent_share"] = float((self.model.heard != 1).double().mean())
        return told

    def _order(self, seed: int, epoch: int) -> list[list[int]]:
        return epoch_batches(self._samples, self.settings.images_per_step, np.random.default_rng([seed, epoch]))

    def _load(self, indices: tuple[int, ...]) -> Share:
        images = shares_of(len(indices), self._group.size)
        sizes = tuple(count * self.settings.patches_per_image for count in images)
        rank = self._group.rank
        first = sum(images[:rank])
        own = [self._samples[index] for index in indices[first : first + images[rank]]]
        # Of the whole step, so that no patch's turn hangs on the number of processes.
        turn_B, weight_B = self._turns(sum(sizes))
        rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        numbers = [self._number_of[self._samples[index].exam.dataset] for index in indices]
        return Share(
            inputs=(patch_rows(self._features, own), turn_B[rows], weight_B[rows]),
            sizes=sizes,
            datasets=np.array(numbers, np.int64).repeat(self.settings.patches_per_image),
        )

    def _turns(self, num_patches: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self.settings.wide_levels == "in-turn":
            return turns_of(num_patches, len(self.model.wide_levels))
        return np.full(num_patches, EVERY_LEVEL), np.ones(num_patches, np.float32)
