"""A tokenizer that never does a text twice: tokens in memory, and in a file of the site between visits."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from mammofed_shared.report.token_file import TokenFile
from mammofed_shared.report.tokenize import Encoded, ReportTokenizer

MOST_BYTES_IN_MEMORY = 128 * 2**20
"""Of one tokenizer in one process; the oldest go first."""
_BYTES_AROUND = 250  # of the objects that hold one text's tokens: digest, array, record, place in the table


class CachedTokenizer(ReportTokenizer):
    """Gives what ``ReportTokenizer`` gives, from a cache where it can.

    May be used by several threads, and be pickled to other processes.

    Args:
        folder_of_text_encoder: with ``tokenizer.json``.
        max_tokens: longer texts are cut.
        cache: folder of the cache's files, one a tokenizer and ``max_tokens``; None keeps tokens in memory alone.
    """

    def __init__(self, folder_of_text_encoder: Path, max_tokens: int, cache: Path | None) -> None:
        super().__init__(folder_of_text_encoder, max_tokens)
        self._arguments = (folder_of_text_encoder, max_tokens, cache)
        self._file: TokenFile | None = None
        if cache is not None:
            digest = _tokenizer_digest(folder_of_text_encoder)
            self._file = TokenFile(cache / f"tokens-{digest[:16]}-{max_tokens}.sqlite")
        self._memory: dict[bytes, Encoded] = {}
        self._num_bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["CachedTokenizer"], tuple[Path, int, Path | None]]:
        """To another process goes where things are, not what memory holds."""
        return CachedTokenizer, self._arguments

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text by itself, unpadded."""
        digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        with self._lock:
            found = {digest: self._memory[digest] for digest in digests if digest in self._memory}
        unknown = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in found}
        if unknown:
            found |= self._look_up(unknown)
        return [found[digest] for digest in digests]

    def _look_up(self, unknown: dict[bytes, str]) -> dict[bytes, Encoded]:
        """Tokens from the file, and for texts that it lacks from the tokenizer; both are remembered."""
        found = self._file.read(list(unknown)) if self._file else {}
        new = {digest: text for digest, text in unknown.items() if digest not in found}
        if new:
            encoded = dict(zip(new, super().encode(list(new.values())), strict=True))
            found |= encoded
            if self._file:
                self._file.write(encoded)
        with self._lock:
            for digest, item in found.items():
                if digest not in self._memory:
                    self._memory[digest] = item
                    self._num_bytes += item.ids.nbytes + _BYTES_AROUND
            while self._num_bytes > MOST_BYTES_IN_MEMORY:
                oldest = next(iter(self._memory))
                self._num_bytes -= self._memory.pop(oldest).ids.nbytes + _BYTES_AROUND
        return found


def _tokenizer_digest(folder: Path) -> str:
    """Changes with everything that changes tokens: the tokenizer's file and the library that reads it."""
    content = (folder / "tokenizer.json").read_bytes()
    return hashlib.sha256(tokenizers.__version__.encode() + b"\0" + content).hexdigest()
