"""Reports as a model sees them in text adaptation: two sections in one text, some tokens hidden, some sections swapped.

Shapes: B reports, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.data.report_texts import ReportTexts
from mammofed_shared.report.masked_tokens import NOT_ASKED, MaskVocabulary, mask_tokens
from mammofed_shared.report.tokenize import ReportTokenizer

NO_PAIR = -1
_Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MaskedReports:
    """A batch, all int64.

    (B, T): ``ids`` with tokens hidden, ``mask`` 1 where there is a token, ``targets`` what the hidden tokens were and
    ``NOT_ASKED`` elsewhere. (B,): ``pairs`` is 1 where both sections are of one exam, 0 where not, ``NO_PAIR`` where
    there are no two. ``num_cut`` counts texts that were longer than allowed.
    """

    ids: _Ids
    mask: _Ids
    targets: _Ids
    pairs: _Ids
    num_cut: int


class MaskedReportReader:
    """Draws batches of a split's reports; what is drawn for a sample hangs on its generator alone."""

    def __init__(
        self,
        texts: ReportTexts,
        tokenizer: ReportTokenizer,
        vocabulary: MaskVocabulary,
        *,
        max_tokens: int,
        masked_share: float,
    ) -> None:
        self.texts = texts
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._masked_share = masked_share

    def batch(self, indices: Sequence[int], randoms: Sequence[np.random.Generator]) -> MaskedReports:
        """Some samples, each drawn by its own generator."""
        drawn = [self.texts.draw(index, random) for index, random in zip(indices, randoms, strict=True)]
        first = self._tokenizer.encode([text.findings for text in drawn])
        second = self._tokenizer.encode([text.impression for text in drawn])
        rows: list[tuple[_Ids, _Ids]] = []
        num_cut = 0
        for text, findings, impression, random in zip(drawn, first, second, randoms, strict=True):
            ids, is_cut = findings.ids, findings.is_cut
            if text.is_own is not None:
                ids, was_cut = joined(findings.ids, impression.ids, self._max_tokens)
                is_cut = is_cut or impression.is_cut or was_cut
            num_cut += is_cut
            rows.append(mask_tokens(ids.astype(np.int64), self._vocabulary, self._masked_share, random))
        hidden, targets = zip(*rows, strict=True)
        pairs = [NO_PAIR if text.is_own is None else int(text.is_own) for text in drawn]
        mask = [np.ones(len(ids), np.int64) for ids in hidden]
        # The number behind the mask is never looked at, so 0 serves as padding for every vocabulary.
        return MaskedReports(
            _padded(hidden, 0), _padded(mask, 0), _padded(targets, NOT_ASKED), np.array(pairs, np.int64), num_cut
        )


def joined(findings: NDArray[np.int32], impression: NDArray[np.int32], most: int) -> tuple[NDArray[np.int32], bool]:
    """Both sections as one text of at most so many tokens, and whether something was cut off.

    Each has an opening and a closing token; the second one's opening token goes. Where it is too long, neither section
    is cut below half of the room.
    """
    rest = impression[1:]
    if len(findings) + len(rest) <= most:
        return np.concatenate([findings, rest]), False
    rest = _cut(rest, most - min(len(findings), most - most // 2))
    return np.concatenate([_cut(findings, most - len(rest)), rest]), True


def _cut(ids: NDArray[np.int32], most: int) -> NDArray[np.int32]:
    """At most so many tokens, the last one kept."""
    return ids if len(ids) <= most else np.concatenate([ids[: most - 1], ids[-1:]])


def _padded(rows: Sequence[_Ids], padding: int) -> _Ids:
    padded = np.full((len(rows), max(map(len, rows))), padding, np.int64)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded
