"""The demo's text encoder: a tiny ModernBERT and a word-level tokenizer over our own grammar.

The folder configs/text_encoder/demo is what ``write_demo_encoder`` writes; it holds no weights, because the demo
starts from random ones.
"""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mammofed_shared.files import write_whole
from mammofed_shared.report.grammar import DENSITIES, DEPTHS, FINDINGS, LATERALITIES, POSITIONS, StructuredFinding
from mammofed_shared.report.phrasings import BIRADS, NUM_VARIANTS, phrasing
from mammofed_shared.report.templates import HOUSE_STYLES

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_demo_encoder(folder: Path) -> None:
    """Write config.json, tokenizer.json and tokenizer_config.json; equal versions of the grammar give equal files."""
    tokenizer = _tokenizer()
    special = {name.strip("[]").lower() + "_token": name for name in SPECIAL_TOKENS}
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    write_whole(
        folder / "tokenizer_config.json",
        _json({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512} | special),
    )
    write_whole(folder / "config.json", _json(_config(tokenizer.get_vocab_size())))


def _tokenizer() -> Tokenizer:
    """Lower-case words and punctuation of everything that our templates can say; other words are [UNK]."""
    splitter = pre_tokenizers.Whitespace()
    words = {word for text in _all_texts() for word, _ in splitter.pre_tokenize_str(text.lower())}
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *sorted(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _all_texts() -> Iterator[str]:
    """Texts that together hold every word of the grammar, of the house styles and of the phrasings."""
    everything = [StructuredFinding(name, present, position="upper") for name in FINDINGS for present in (True, False)]
    for density, birads, variant in product(DENSITIES, BIRADS, range(NUM_VARIANTS)):
        yield phrasing(everything, density, birads, exam="demo", variant=variant)
    for style, birads, density in product(HOUSE_STYLES.values(), (0, 1, 2), DENSITIES):
        absent = [StructuredFinding(finding, False) for finding in FINDINGS]
        present = [
            StructuredFinding(finding, True, subtype, laterality, position, depth)
            for finding, noun in FINDINGS.items()
            for subtype, laterality, position, depth in product(noun.subtypes, LATERALITIES, POSITIONS, DEPTHS)
        ]
        for findings in (absent, present, [StructuredFinding(finding, True) for finding in FINDINGS]):
            report = style(findings, density, birads)
            yield report.findings
            yield report.impression


def _config(num_words: int) -> dict[str, object]:
    ids = {name: index for index, name in enumerate(SPECIAL_TOKENS)}
    return {
        "model_type": "modernbert",
        "architectures": ["ModernBertModel"],
        "vocab_size": num_words,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": ids["[PAD]"],
        "cls_token_id": ids["[CLS]"],
        "bos_token_id": ids["[CLS]"],
        "sep_token_id": ids["[SEP]"],
        "eos_token_id": ids["[SEP]"],
    }


def _json(values: dict[str, object]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
