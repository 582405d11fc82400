"""Masked tokens: how many, which ones, and what stands in their place."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from mammofed_shared.errors import ConfigurationError
from mammofed_shared.report.masked_tokens import NOT_ASKED, mask_tokens, read_mask_vocabulary
from prepared import TEXT_ENCODER

VOCABULARY = read_mask_vocabulary(TEXT_ENCODER)
TEXT = np.array([2, *range(10, 50), 1, 3], np.int64)
"""[CLS], 40 words, [UNK], [SEP]."""


def masked(number: int) -> tuple[np.ndarray, np.ndarray]:
    return mask_tokens(TEXT, VOCABULARY, 0.15, np.random.default_rng(number))


def test_special_tokens_are_no_words_and_the_mask_is_the_tokenizers() -> None:
    names = Tokenizer.from_file(str(TEXT_ENCODER / "tokenizer.json"))

    assert VOCABULARY.mask == names.token_to_id("[MASK]")
    assert not VOCABULARY.is_word[:5].any() and VOCABULARY.is_word[5:].all()
    assert len(VOCABULARY.is_word) == names.get_vocab_size()


def test_15_percent_of_the_words_are_asked_for_and_of_these_80_10_and_10_percent_hidden_replaced_and_left() -> None:
    num_asked = num_hidden = num_left = 0
    for number in range(500):
        hidden, targets = masked(number)
        asked = targets != NOT_ASKED
        assert asked.sum() == 6 == round(0.15 * 40)
        assert not asked[[0, -2, -1]].any(), "a special token is never asked for"
        assert (targets[asked] == TEXT[asked]).all() and (hidden[~asked] == TEXT[~asked]).all()
        assert VOCABULARY.is_word[hidden[asked & (hidden != VOCABULARY.mask)]].all(), "a word stands for a word"
        num_asked += int(asked.sum())
        num_hidden += int((hidden == VOCABULARY.mask).sum())
        num_left += int((hidden[asked] == TEXT[asked]).sum())

    assert num_hidden / num_asked == pytest.approx(0.8, abs=0.03)
    assert num_left / num_asked == pytest.approx(0.1, abs=0.03)


def test_equal_generators_hide_the_same_and_others_do_not() -> None:
    assert (masked(1)[0] == masked(1)[0]).all()
    assert (masked(1)[0] != masked(2)[0]).any()


def test_a_short_text_is_asked_for_one_word_and_one_without_words_for_none() -> None:
    random = np.random.default_rng(0)

    assert (mask_tokens(np.array([2, 10, 3]), VOCABULARY, 0.15, random)[1] >= 0).tolist() == [False, True, False]
    assert (mask_tokens(np.array([2, 1, 3]), VOCABULARY, 0.15, random)[1] == NOT_ASKED).all()


@pytest.mark.parametrize("named", [None, "<hide>", {"content": "<hide>"}])
def test_a_tokenizer_without_a_mask_is_refused_and_its_own_name_for_it_is_taken(tmp_path: Path, named: object) -> None:
    stored = json.loads((TEXT_ENCODER / "tokenizer.json").read_text())
    stored["added_tokens"][4]["content"] = "<hide>"
    vocabulary = stored["model"]["vocab"]
    stored["model"]["vocab"] = {"<hide>" if name == "[MASK]" else name: number for name, number in vocabulary.items()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": named}))

    if named is None:
        with pytest.raises(ConfigurationError, match="no special token for masks"):
            read_mask_vocabulary(tmp_path)
    else:
        assert read_mask_vocabulary(tmp_path).mask == 4


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json"):
        read_mask_vocabulary(tmp_path)
