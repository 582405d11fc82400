"""Sentences of reports, translated to Italian and back, as ``site-client augment-text`` published them.

    <prepared>/translations.sqlite     table about: the recipe; table sentence: key, English text

The file is replaced as a whole and never changed, so it is read without locks, by any number of threads and processes;
who has it open keeps what it was. It holds text of reports: readable by its owner only, and it stays at the site.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammofed_shared.errors import DataError
from mammofed_shared.report.sentences import sentences_in

TRANSLATIONS_NAME = "translations.sqlite"
VERSION = 1
"""``user_version`` of the file."""


@dataclass(frozen=True, slots=True)
class TranslationRecipe:
    """What translations are made with; those of another recipe do not count."""

    to_italian: str
    """SHA-256 of the model's folder."""
    to_english: str
    beams: int

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the recipe."""
        return hashlib.sha256(json.dumps([self.to_italian, self.to_english, self.beams]).encode()).hexdigest()


def sentence_key(recipe_digest: str, sentence: str) -> bytes:
    """The key of a sentence's translation: SHA-256 over recipe and sentence."""
    return hashlib.sha256(bytes.fromhex(recipe_digest) + sentence.encode()).digest()


class Translations:
    """Looks up texts in the published translations of some data sets.

    Args:
        folders: prepared folders; those without translations are passed over.

    Raises:
        DataError: a file cannot be read, or another version wrote it.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._open = threading.local()
        self._files()

    def __reduce__(self) -> tuple[type["Translations"], tuple[tuple[Path, ...]]]:
        """To another process only the folders go: it opens the files itself."""
        return Translations, (self._folders,)

    def __call__(self, text: str) -> str | None:
        """The text translated there and back; None unless every sentence of it is there."""
        return next((found for file in self._files() if (found := file.text(text)) is not None), None)

    def _files(self) -> list["PublishedTranslations"]:
        # A connection serves one thread of one process; a forked process must not use its parent's.
        if getattr(self._open, "process", None) != os.getpid():
            paths = [folder / TRANSLATIONS_NAME for folder in self._folders]
            self._open.files = [PublishedTranslations(path) for path in paths if path.exists()]
            self._open.process = os.getpid()
        files: list[PublishedTranslations] = self._open.files
        return files


class PublishedTranslations:
    """The published translations of one data set, for one thread.

    Raises:
        DataError: the file cannot be read, or another version wrote it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            self._recipe = self._base.execute("SELECT recipe FROM about").fetchone()[0]
        except (sqlite3.Error, TypeError) as error:
            raise _unreadable() from error
        if version != VERSION:
            raise _unreadable()

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def text(self, text: str) -> str | None:
        """The text translated there and back; None unless every sentence of it is there."""
        translated = [self._sentence(sentence) for sentence in sentences_in(text)]
        return None if None in translated else " ".join(filter(None, translated)) or None

    def holds(self, recipe: TranslationRecipe, sentences: Collection[str]) -> bool:
        """Whether this recipe made it, and it has these different sentences and no others."""
        number = self._base.execute("SELECT count(*) FROM sentence").fetchone()[0]
        return (
            self._recipe == recipe.digest
            and number == len(sentences)
            and all(self._sentence(sentence) is not None for sentence in sentences)
        )

    def _sentence(self, sentence: str) -> str | None:
        try:
            row = self._base.execute(
                "SELECT text FROM sentence WHERE key = ?", (sentence_key(self._recipe, sentence),)
            ).fetchone()
        except sqlite3.Error as error:
            raise _unreadable() from error
        return None if row is None else str(row[0])


def _unreadable() -> DataError:
    return DataError(
        f"{TRANSLATIONS_NAME} of a data set is damaged or of another version: delete it and run "
        "`site-client augment-text` again"
    )
