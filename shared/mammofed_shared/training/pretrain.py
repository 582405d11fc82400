"""The task ``pretrain``: image–text pretraining of Mammo-FM, and its zero-shot evaluation.

Shapes: B samples, H rows, W columns, T tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.data.augment import Ranges
from mammofed_shared.data.batches import epoch_batches, loaded_ahead, num_batches
from mammofed_shared.data.image_text import (
    breast_samples,
    image_pair,
    require_training_data,
    stack_greys,
    text_pair,
)
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.embed import embed_images, embed_texts
from mammofed_shared.evaluation.zero_shot import (
    Evaluation,
    density_accuracy,
    finding_numbers,
    score_findings,
)
from mammofed_shared.exam import Exam, Split
from mammofed_shared.losses.contrastive import mvs_loss
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.text_encoder import TextEncoder
from mammofed_shared.report.tokenize import ReportTokenizer, Tokens


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
            pretrained=pretrained and image.weights == "imagenet",
            pooling=image.pooling,
            activation_checkpointing=image.activation_checkpointing,
            batch_norm=image.batch_norm,
        ),
        TextEncoder(
            text_encoder,
            pretrained=pretrained and text.weights == "folder",
            activation_checkpointing=text.activation_checkpointing,
        ),
        settings.projection_dim,
    )


@dataclass(frozen=True, slots=True)
class PretrainBatch:
    """Samples of one step, on the CPU: greys (B, H, W) uint8; texts, then their views, as 2 · B rows of tokens."""

    greys: NDArray[np.uint8]
    grey_views: NDArray[np.uint8]
    tokens: Tokens

    def __len__(self) -> int:
        return len(self.greys)


class PretrainTask:
    """Model, loss and the data of one site.

    Args:
        model: as ``build_model`` gives it, on the device.
        text_encoder: folder with the tokenizer.
        exams: all exams of the site; those of the split ``train`` that have images and a text are used.
        loaders: threads that read images ahead.

    Raises:
        VisitFailed: NO_DATA, with fewer than two exams.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        model: DualEncoder,
        text_encoder: Path,
        exams: Sequence[Exam],
        device: torch.device,
        loaders: int,
    ) -> None:
        self.settings = settings
        self.model = model
        self.samples = breast_samples(exams, Split.TRAIN)
        require_training_data(self.samples)
        self.num_texts_cut = 0
        self._tokenizer = ReportTokenizer(text_encoder, settings.text_encoder.max_tokens)
        self._device = device
        self._loaders = loaders
        augmentation = settings.augmentation
        self._ranges = Ranges(
            flip_probability=augmentation.flip_probability,
            rotation_deg=augmentation.rotation_deg,
            translation=augmentation.translation,
            scale=augmentation.scale,
            shear_deg=augmentation.shear_deg,
            elastic_alpha_px=augmentation.elastic_alpha,
            elastic_sigma_px=augmentation.elastic_sigma,
        )

    @property
    def num_exams(self) -> int:
        """Exams that training uses."""
        return len({(sample.exam.dataset, sample.exam.exam) for sample in self.samples})

    @property
    def num_steps(self) -> int:
        """Steps of one epoch."""
        return num_batches(self.samples, self.settings.batch_size)

    def batches(self, seed: int, epoch: int) -> Iterator[PretrainBatch]:
        """The batches of an epoch; counts the texts that are cut in the first."""
        order = epoch_batches(self.samples, self.settings.batch_size, np.random.default_rng([seed, epoch]))
        loading = [partial(self._load, tuple(indices), seed, epoch) for indices in order]
        for batch in loaded_ahead(loading, self._loaders):
            self.num_texts_cut += batch.tokens.num_cut if epoch == 0 else 0
            yield batch

    def losses(self, batch: PretrainBatch) -> Mapping[str, Tensor]:
        """Multi-view supervision of one batch."""
        count = len(batch)
        grey = np.concatenate([batch.greys, batch.grey_views])
        images = self.model.embed_images(torch.from_numpy(grey).to(self._device))
        texts = self.model.embed_texts(
            torch.from_numpy(batch.tokens.ids).to(self._device),
            torch.from_numpy(batch.tokens.mask).to(self._device),
        )
        # Logits of up to 100 lose the last digits that the loss needs in bfloat16.
        with torch.autocast(self._device.type, enabled=False):
            loss = mvs_loss(
                images[:count],
                images[count:],
                texts[:count],
                texts[count:],
                self.model.log_scale.exp(),
                variant=self.settings.loss.variant,
                text_text_weight=self.settings.loss.text_text_weight,
            )
        return {
            "loss": loss.total,
            "loss_image_text": loss.image_text,
            "loss_image_image": loss.image_image,
            "loss_text_text": loss.text_text,
        }

    def after_step(self) -> None:
        """Hold the temperature in its range."""
        self.model.clamp_scale()

    def numbers(self) -> dict[str, float]:
        """Numbers of the task after training, as they may leave the site."""
        return {
            "num_exams": float(self.num_exams),
            "num_texts_cut": float(self.num_texts_cut),
            "temperature": float(torch.exp(-self.model.log_scale.detach())),
        }

    def _load(self, indices: tuple[int, ...], seed: int, epoch: int) -> PretrainBatch:
        pairs = []
        texts = []
        for index in indices:
            sample = self.samples[index]
            # A generator of its own for each sample: what it draws depends on no other sample and no thread.
            random = np.random.default_rng([seed, epoch, index])
            natural = self.settings.augmentation.natural_view
            pairs.append(image_pair(sample, self._ranges, random, natural_view=natural))
            assert sample.exam.report is not None  # breast_samples leaves out exams without a text
            texts.append(text_pair(sample.exam.report, random))
        tokens = self._tokenizer([text for text, _ in texts] + [view for _, view in texts])
        return PretrainBatch(
            stack_greys([image for image, _ in pairs]), stack_greys([view for _, view in pairs]), tokens
        )


@torch.no_grad()
def evaluate(
    settings: PretrainSettings,
    model: DualEncoder,
    text_encoder: Path,
    exams: Sequence[Exam],
    device: torch.device,
    loaders: int,
    report: Callable[[int, int], None],
) -> Evaluation:
    """Zero-shot scores of the test exams that have images.

    Args:
        report: called after each batch with the number of batches done and of all.

    Raises:
        VisitFailed: NO_DATA, where there is no such exam.
    """
    model.eval()
    tested = [exam for exam in exams if exam.split is Split.TEST and exam.images]
    if not tested:
        raise VisitFailed(RefusalCode.NO_DATA, "evaluation needs exams with images in the split test, found none")
    tokenizer = ReportTokenizer(text_encoder, settings.text_encoder.max_tokens)
    embed = partial(embed_texts, model, tokenizer, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        images_ND = embed_images(
            model,
            [image for exam in tested for image in exam.images],
            batch_size=2 * settings.batch_size,
            device=device,
            loaders=loaders,
            report=report,
        )
        scores = score_findings(tested, images_ND, settings.findings, embed)
        density = density_accuracy(tested, images_ND, embed)
    numbers = {"num_exams": float(len(tested))} | finding_numbers(scores, settings.findings)
    if density is not None:
        numbers["density_accuracy"] = density
    return Evaluation(numbers, scores)
