"""What the sentences of a report lose of their likeness to the images when neurons are turned off.

Shapes: A active neurons, M coalitions, V views, S sentences, D dimensions of the shared space.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mammofed_shared.evaluation.embed import embed_texts
from mammofed_shared.exam import Report
from mammofed_shared.interpretability.coalition import Coalitions
from mammofed_shared.interpretability.sentence import SentenceDrop, report_sentences, sentence_drops
from mammofed_shared.interpretability.sparse_maps import SparseMaps, sparse_maps
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.report.tokenize import ReportTokenizer


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads an exam: the frozen model and the autoencoder of its maps, in evaluation mode, on one device."""

    encoder: DualEncoder
    tokenizer: ReportTokenizer
    autoencoder: SparseAutoencoder
    device: torch.device

    def code(self, maps_VChw: torch.Tensor) -> SparseMaps:
        """The shortest code of some maps, by which everything is explained (k = 64 in the paper)."""
        return sparse_maps(self.autoencoder, maps_VChw, self.autoencoder.levels[0])

    def coalitions(self, maps: SparseMaps) -> Coalitions:
        """The same, of which neurons can be turned off."""
        return Coalitions(maps, self.autoencoder, self.encoder.image_encoder.pooling)


@torch.no_grad()
def sentences_lost(
    reader: Reader, coalitions: Coalitions, report: Report | None, off: Sequence[list[int]]
) -> list[tuple[SentenceDrop, ...]]:
    """What each sentence loses without each of these groups of neurons, the largest drop first; nothing where the exam
    has no report.

    Raises:
        VisitFailed: NOT_FINITE, the text encoder gives no number.
    """
    sentences = report_sentences(report)
    if not sentences:
        return [()] * len(off)
    text_SD = embed_texts(reader.encoder, reader.tokenizer, reader.device, sentences)
    on_MA = torch.cat([coalitions.without(neurons) for neurons in ([], *off)])
    image_MVD = reader.encoder.project_images(coalitions.pooled(on_MA)).cpu()
    return [tuple(sentence_drops(image_MVD[0], ablated_VD, sentences, text_SD)) for ablated_VD in image_MVD[1:]]
