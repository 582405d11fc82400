"""Reports as token numbers, by the tokenizer in the text-encoder folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mammofed_shared.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch of texts.

    ``ids`` and ``mask`` are (texts, tokens) int64, padded to the longest; ``num_cut`` counts texts that were
    longer than allowed.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    num_cut: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text: its tokens (int32), and whether it was longer than allowed."""

    ids: NDArray[np.int32]
    is_cut: bool


class ReportTokenizer:
    """Turns texts into tokens, cut at ``max_tokens`` with the closing token kept.

    The file ``tokenizer.json`` is read by the ``tokenizers`` library itself: no code of the folder can run. It
    serves ModernBERT-base and the demo's encoder alike.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ConfigurationError(
                f"text_encoder: expected tokenizer.json in {folder}. Copy the encoder's whole folder there."
            )
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    @property
    def num_words(self) -> int:
        """Size of the vocabulary."""
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Encode texts; an empty text is its opening and closing tokens."""
        return _padded(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text by itself, unpadded."""
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        return [Encoded(np.array(item.ids, np.int32), bool(item.overflowing)) for item in encoded]


def _padded(encoded: Sequence[Encoded]) -> Tokens:
    lengths = np.array([len(item.ids) for item in encoded], np.int64)
    is_token = np.arange(lengths.max(initial=0)) < lengths[:, None]
    # The number behind the mask is never looked at, so 0 serves as padding for every vocabulary.
    ids = np.zeros(is_token.shape, np.int64)
    if encoded:
        ids[is_token] = np.concatenate([item.ids for item in encoded])
    return Tokens(ids, is_token.astype(np.int64), sum(item.is_cut for item in encoded))
