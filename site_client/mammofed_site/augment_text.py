"""``site-client augment-text``: reports of one section get a second text, by translation to Italian and back.

The paper's augmented text of such a report (Instance and Dataset Augmentation), made once, offline, at the site. Only
training exams without the other section need it. Sentences are translated one by one, each once: it is what MarianMT
was trained on, its limit of 512 tokens is no longer one, and reports share most of their sentences. The text is
scrubbed already, so what is made of it is not scrubbed again.

This file is light: torch is loaded, by name, when there is something to translate.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.data.text_pair import only_section
from mammofed_shared.data.translations import TRANSLATIONS_NAME, PublishedTranslations, TranslationRecipe
from mammofed_shared.exam import Exam, Split
from mammofed_shared.report.sentences import sentences_in
from mammofed_site.translation_models import locate_models, recipe_of
from mammofed_site.translation_store import TranslationStore, forget_translations

HEAVY_MODULE = "mammofed_site.marian"
"""Loaded by name, so that the imports of `site-client` stay free of torch."""

Translate = Callable[[Sequence[str]], Sequence[str]]
"""Sentences → each of them, translated there and back."""

_FACTS = re.compile(r"\b(?:left|right|bilateral)\b|\d+(?:[.,]\d+)?", re.IGNORECASE)
_DENIAL = re.compile(r"\b(?:no|not|none|nor|neither|never|without|absen(?:t|ce)|free|negative|\w+n't)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be translated of one data set."""

    name: str
    prepared: Path
    num_exams: int
    sentences: tuple[str, ...]
    """Each once."""


def augment_text(settings: SiteSettings, console: Console) -> None:
    """Translate what training needs of every data set and publish it; a second call does nothing.

    Raises:
        DataError: a data set is not prepared, or its translations are damaged.
        ConfigurationError: a model or the device is not there.
        StateError: another process is translating a data set.
    """
    work = [work_of(dataset, settings.prepared_folder(dataset)) for dataset in settings.datasets]
    for item in work:
        if not item.sentences:
            forget_translations(item.prepared)
            console.print(f"{item.name}: no training exam has only one section; nothing to translate")
    todo = [item for item in work if item.sentences]
    if not todo:
        return
    models = locate_models(settings.translation)
    recipe = recipe_of(models, settings.translation.beams)
    waiting = [item for item in todo if not _is_published(item, recipe)]
    for item in todo:
        if item not in waiting:
            console.print(f"{item.name}: {_amount(item)}: all translated before")
    translate = _lazily(settings, models)
    for item in waiting:
        translate_dataset(item, recipe, translate, settings.translation.batch_size, console)


def work_of(dataset: DatasetSettings, prepared: Path) -> Work:
    """The sentences of all training exams of a data set whose report has findings or impression alone."""
    sections = [section for exam in read_exams([(dataset.name, prepared)]) if (section := _section(exam))]
    sentences = dict.fromkeys(item for section in sections for item in sentences_in(section))
    return Work(dataset.name, prepared, len(sections), tuple(sentences))


def translate_dataset(
    work: Work, recipe: TranslationRecipe, translate: Translate, batch_size: int, console: Console
) -> None:
    """Translate the sentences that are missing, batch by batch, each kept at once; publish them when all are there."""
    with TranslationStore(work.prepared, recipe) as store, _bar(console) as bar:
        # Sentences of one length waste no padding; the longest first, so that memory runs out at once or never.
        missing = sorted(store.missing(work.sentences), key=lambda item: (-len(item), item))
        num_before = len(work.sentences) - len(missing)
        task = bar.add_task(f"augment-text {work.name}", total=len(work.sentences), completed=num_before)
        num_kept = 0
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            checked = [_checked(*pair) for pair in zip(batch, translate(batch), strict=True)]
            num_kept += sum(sentence == text for sentence, text in zip(batch, checked, strict=True))
            store.add(zip(batch, checked, strict=True))
            bar.advance(task, len(batch))
        store.publish(work.sentences)
    console.print(f"{work.name}: {_amount(work)}; {len(missing)} translated now, {num_kept} of them stay as they are")


def _section(exam: Exam) -> str | None:
    """The text that needs a translation; None for exams that never train, or have another second text."""
    if exam.split is not Split.TRAIN or exam.report is None or exam.attributes is not None:
        return None
    return only_section(exam.report)


def _checked(sentence: str, translated: str) -> str:
    """The translation; the sentence itself where the translation is empty, runs away or tells other facts."""
    num_words = len(translated.split())
    is_sound = 0 < num_words <= 2 * len(sentence.split()) + 4 and _facts(translated) == _facts(sentence)
    return translated if is_sound else sentence


def _facts(text: str) -> tuple[list[str], bool]:
    """Sides and numbers that a text names, and whether it denies anything."""
    return sorted(word.lower().replace(",", ".") for word in _FACTS.findall(text)), bool(_DENIAL.search(text))


def _is_published(work: Work, recipe: TranslationRecipe) -> bool:
    if not (work.prepared / TRANSLATIONS_NAME).exists():
        return False
    published = PublishedTranslations(work.prepared / TRANSLATIONS_NAME)
    try:
        return published.holds(recipe, work.sentences)
    finally:
        published.close()


def _lazily(settings: SiteSettings, models: tuple[Path, Path]) -> Translate:
    """Loads torch and the models with the first sentence: a run that lacks none only publishes."""

    @cache
    def round_trip() -> Translate:
        loaded: Translate = importlib.import_module(HEAVY_MODULE).RoundTrip(
            models,
            beams=settings.translation.beams,
            batch_size=settings.translation.batch_size,
            device=settings.worker.device,
            threads=settings.worker.threads,
        )
        return loaded

    return lambda sentences: round_trip()(sentences)


def _amount(work: Work) -> str:
    return f"{work.num_exams} exams of one section, {len(work.sentences)} different sentences"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("sentences"),
        TimeRemainingColumn(),
        console=console,
    )
