"""English → Italian → English by two MarianMT models. Torch lives here; ``augment_text`` loads this module by name."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import MarianMTModel, MarianTokenizer
from transformers.utils.logging import disable_progress_bar

from mammofed_shared.errors import ConfigurationError
from mammofed_site.torch_device import device_of

_LONGEST = 512
"""Tokens that a MarianMT model was trained for."""


class RoundTrip:
    """Translates sentences there and back.

    Args:
        models: folder of the model to Italian, and of the one to English.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: a folder holds no MarianMT model, or the device is not there.
    """

    def __init__(self, models: tuple[Path, Path], *, beams: int, batch_size: int, device: str, threads: int) -> None:
        where = device_of(device)
        torch.set_num_threads(threads)
        disable_progress_bar()  # type: ignore[no-untyped-call]  # the command has its own
        self._ways = [_OneWay(folder, beams, batch_size, where) for folder in models]

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        """Each sentence, translated there and back."""
        texts = list(sentences)
        for way in self._ways:
            texts = way.translate(texts)
        return texts


class _OneWay:
    def __init__(self, folder: Path, beams: int, batch_size: int, device: torch.device) -> None:
        options: dict[str, Any] = {"local_files_only": True}
        try:
            with warnings.catch_warnings():
                # It recommends sacremoses, which makes typographic quotation marks plain.
                warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
                self._tokenizer: Any = MarianTokenizer.from_pretrained(folder, **options)
            model: Any = MarianMTModel.from_pretrained(folder, dtype=torch.float32, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigurationError(
                f"translation: {folder} cannot be read as a MarianMT model: {error}. Copy it there again"
            ) from error
        self._model = model.to(device).eval()
        self._model.generation_config.max_length = None  # the batch says how long
        self._device = device
        self._beams = beams
        self._batch_size = batch_size
        self._limit = min(_LONGEST, int(model.config.max_position_embeddings))

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The texts in the other language; one that is too long is translated in parts."""
        parts = [self._parts(text) for text in texts]
        flat = [part for of_text in parts for part in of_text]
        translated: list[str] = []
        for start in range(0, len(flat), self._batch_size):
            translated += self._batch(flat[start : start + self._batch_size])
        rest = iter(translated)
        return [" ".join(filter(None, (next(rest) for _ in of_text))) for of_text in parts]

    @torch.inference_mode()
    def _batch(self, texts: list[str]) -> list[str]:
        tokens = self._tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=self._limit).to(
            self._device
        )
        # A sentence hardly grows in translation; a decoder that loops is ended.
        longest = min(2 * tokens["input_ids"].shape[1] + 16, self._limit - 1)
        try:
            found = self._model.generate(**tokens, num_beams=self._beams, do_sample=False, max_new_tokens=longest)
        except torch.OutOfMemoryError as error:
            raise ConfigurationError(
                f"translation: {len(texts)} sentences with {self._beams} beams need more memory than the GPU has: "
                "lower translation.batch_size, and start the same command again"
            ) from error
        return [text.strip() for text in self._tokenizer.batch_decode(found, skip_special_tokens=True)]

    def _parts(self, text: str) -> list[str]:
        """The text, halved between words until each part is short enough; none where it is empty."""
        words = text.split()
        if len(words) < 2 or len(self._tokenizer(text, verbose=False)["input_ids"]) <= self._limit:
            return [text] if text else []
        middle = len(words) // 2
        return [part for half in (words[:middle], words[middle:]) for part in self._parts(" ".join(half))]
