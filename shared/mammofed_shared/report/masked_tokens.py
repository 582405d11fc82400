"""Tokens that a model is to find again: which ones, and what stands in their place (masked-language modelling).

Source: Devlin et al. 2019, *BERT*, section 3.1. Of the chosen tokens 80 % become the mask, 10 % another token, 10 %
stay.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mammofed_shared.errors import ConfigurationError

NOT_ASKED = -1
"""Target of a token that is not to be found."""
_HIDDEN, _REPLACED = 0.8, 0.1
_USUAL_NAMES = ("[MASK]", "<mask>")


@dataclass(frozen=True, slots=True)
class MaskVocabulary:
    """A tokenizer's mask, and ``is_word``: (tokens,) whether a number is an ordinary token; special ones are not."""

    mask: int
    is_word: NDArray[np.bool_]


def read_mask_vocabulary(folder: Path) -> MaskVocabulary:
    """The vocabulary of the tokenizer in a text-encoder folder.

    Raises:
        ConfigurationError: there is no tokenizer, or it has no mask.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigurationError(
            f"text_encoder: expected tokenizer.json in {folder}. Copy the encoder's whole folder there."
        )
    tokenizer = Tokenizer.from_file(str(path))
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    name = next((name for name in (_named_mask(folder), *_USUAL_NAMES) if name in special), None)
    if name is None:
        raise ConfigurationError(
            f"text_encoder: the tokenizer in {folder} has no special token for masks, which the task `text` needs: "
            "take an encoder that was trained by masked-language modelling, such as answerdotai/ModernBERT-base"
        )
    numbers = tokenizer.get_vocab(with_added_tokens=True).values()
    is_word = np.zeros(max(numbers) + 1, bool)
    is_word[list(numbers)] = True
    is_word[list(special.values())] = False
    return MaskVocabulary(special[name], is_word)


def mask_tokens(
    ids: NDArray[np.int64], vocabulary: MaskVocabulary, share: float, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A text with some of its tokens hidden, and what they were; ``NOT_ASKED`` at all others. Both (tokens,).

    Args:
        ids: one text.
        share: of its ordinary tokens; at least one is chosen where there is one.
    """
    words = np.flatnonzero(vocabulary.is_word[ids])
    count = max(1, round(share * len(words))) if len(words) else 0
    chosen = random.permutation(words)[:count]
    fate = random.random(count)
    others = random.choice(np.flatnonzero(vocabulary.is_word), count)
    hidden = ids.copy()
    hidden[chosen] = np.select(
        [fate < _HIDDEN, fate < _HIDDEN + _REPLACED], [np.full(count, vocabulary.mask), others], ids[chosen]
    )
    targets = np.full_like(ids, NOT_ASKED)
    targets[chosen] = ids[chosen]
    return hidden, targets


def _named_mask(folder: Path) -> str | None:
    """The mask that the tokenizer's own configuration names."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            named = json.loads((folder / file).read_text(encoding="utf-8")).get("mask_token")
            name = named.get("content") if isinstance(named, dict) else named
            if name:
                return str(name)
    return None
