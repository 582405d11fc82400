"""The task ``text``: adapting the text encoder to reports before pretraining (paper, section Architecture).

Shapes: B reports, T tokens.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.data.batches import epoch_batches, loaded_ahead, num_batches
from mammofed_shared.data.masked_reports import MaskedReportReader
from mammofed_shared.data.report_texts import ReportTexts
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.exam import Split
from mammofed_shared.models.text_adaptation import TextAdaptation
from mammofed_shared.models.text_encoder import TextEncoder
from mammofed_shared.report.masked_tokens import read_mask_vocabulary
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.group import WorkerGroup, shares_of
from mammofed_shared.training.share import Share
from mammofed_shared.training.site_data import SiteData, require_shares
from mammofed_shared.training.step import Losses


def build_model(settings: TextSettings, text_encoder: Path, pretrained: bool) -> TextAdaptation:
    """The text encoder of a run and its two heads.

    Args:
        text_encoder: folder with configuration, tokenizer and weights.
        pretrained: start from the weights that the settings name; else from random ones, to be overwritten.

    Raises:
        ConfigurationError: the tokenizer cannot hide tokens.
    """
    read_mask_vocabulary(text_encoder)
    from_folder = pretrained and settings.text_encoder.weights == "folder"
    encoder = TextEncoder(
        text_encoder,
        pretrained=from_folder,
        activation_checkpointing=settings.text_encoder.activation_checkpointing,
        pooling=settings.text_encoder.pooling,
    )
    return TextAdaptation(encoder, text_encoder, pretrained=from_folder)


def masked_report_reader(settings: TextSettings, data: SiteData, texts: ReportTexts) -> MaskedReportReader:
    """What draws batches of a site's reports as the settings ask."""
    return MaskedReportReader(
        texts,
        data.tokenizer(settings.text_encoder.max_tokens),
        read_mask_vocabulary(data.text_encoder_folder),
        max_tokens=settings.text_encoder.max_tokens,
        masked_share=settings.masked_share,
    )


class TextTask:
    """Text adaptation on the reports of one site.

    Raises:
        VisitFailed: NO_DATA, where there are fewer than two reports.
    """

    def __init__(self, settings: TextSettings, model: TextAdaptation, data: SiteData, group: WorkerGroup) -> None:
        self.settings = settings
        self.model = model
        self._texts = ReportTexts(data.exams, Split.TRAIN, settings.swapped_share)
        if len(self._texts.samples) < 2:
            raise VisitFailed(
                RefusalCode.NO_DATA,
                "text adaptation needs at least 2 exams with a text in the split train, found "
                f"{len(self._texts.samples)}: check `reports`, `attributes` and `split` of this site, and run "
                "`site-client preprocess` again",
            )
        require_shares(len(self._texts.samples), self.num_steps, group.size)
        self._reader = masked_report_reader(settings, data, self._texts)
        self._loaders = data.loaders
        self._group = group
        self._number_of = data.told_numbers(sample.exam for sample in self._texts.samples)
        if group.hardware.compile:
            model.text_encoder.compile_encoder()

    @property
    def num_steps(self) -> int:
        """Steps of one epoch."""
        return num_batches(self._texts.samples, self.settings.batch_size)

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """This process's shares of an epoch, read ahead by threads."""
        order = epoch_batches(self._texts.samples, self.settings.batch_size, np.random.default_rng([seed, epoch]))
        loading = [partial(self._load, tuple(indices), seed, epoch) for indices in order[start:]]
        return loaded_ahead(loading, self._loaders)

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        """Means over all hidden tokens and over all pairs of a step, in full precision."""
        token_loss_B, num_tokens_B, pair_loss_B, has_pair_B = outputs
        weights = self.settings.loss
        num_pairs = has_pair_B.sum()
        mlm_loss = token_loss_B.sum() / num_tokens_B.sum().clamp(min=1)
        pair_loss = pair_loss_B.sum() / num_pairs.clamp(min=1)
        parts = {"mlm_loss": mlm_loss}
        if num_pairs > 0:  # a step without a pair says nothing of pairs
            parts["pair_loss"] = pair_loss
        mean_B = token_loss_B / num_tokens_B.clamp(min=1)
        return Losses(
            weights.masked_weight * mlm_loss + weights.pair_weight * pair_loss,
            parts,
            weights.masked_weight * mean_B + weights.pair_weight * pair_loss_B,
        )

    def after_step(self, engine: Engine) -> None:
        """Nothing needs to hold."""

    def numbers(self) -> dict[str, float]:
        """Numbers of the task after training, as they may leave the site."""
        return {"num_exams": float(len(self._texts.samples))}

    def _load(self, indices: tuple[int, ...], seed: int, epoch: int) -> Share:
        sizes = shares_of(len(indices), self._group.size)
        first = sum(sizes[: self._group.rank])
        own = indices[first : first + sizes[self._group.rank]]
        # A generator of its own for each sample: what it draws depends on no other sample, thread or process.
        batch = self._reader.batch(own, [np.random.default_rng([seed, epoch, index]) for index in own])
        datasets = [self._number_of[self._texts.samples[index].exam.dataset] for index in indices]
        return Share(
            inputs=(batch.ids, batch.mask, batch.targets, batch.pairs),
            sizes=sizes,
            datasets=np.array(datasets, np.int64),
            # Told of the first epoch, so that a text counts once.
            counts={"num_texts_cut": batch.num_cut} if epoch == 0 else {},
        )
