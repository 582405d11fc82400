"""`site-client augment-text`: what is translated, that nothing is done twice or lost, and what training then reads."""

import io
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from mammofed_shared.config.site import SiteSettings, TranslationSettings
from mammofed_shared.data.columns import EXAMS, schema_of
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.data.text_pair import text_pair
from mammofed_shared.data.translations import TRANSLATIONS_NAME, TranslationRecipe, Translations
from mammofed_shared.errors import ConfigurationError, DataError, StateError
from mammofed_site.augment_text import HEAVY_MODULE, Work, augment_text, translate_dataset, work_of
from mammofed_site.translation_models import locate_models, recipe_of
from mammofed_site.translation_store import TranslationStore
from marian import write_marian
from prepared import site_settings

RECIPE = TranslationRecipe("1" * 64, "2" * 64, 4)
LONG = " ".join(["The breasts are heterogeneously dense and stable since the last examination"] * 8) + "."
KILL = """
import io, os, signal, sys
from pathlib import Path
from rich.console import Console
from mammofed_shared.data.translations import TranslationRecipe
from mammofed_site.augment_text import Work, translate_dataset
def translate(sentences):
    if "no 60." in sentences:
        os.kill(os.getpid(), signal.SIGKILL)
    return [text.replace("Sentence", "Phrase") for text in sentences]
sentences = tuple(f"Sentence no {number}." for number in range(10, 100))
work = Work("one", Path(sys.argv[1]), 5, tuple(text.replace("Sentence no 60.", "no 60.") for text in sentences))
translate_dataset(work, TranslationRecipe("1" * 64, "2" * 64, 4), translate, 8, Console(file=io.StringIO()))
"""


class Translator:
    """Puts a word into sentences, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        self.asked += sentences
        return [f"Truly, {text[0].lower()}{text[1:]}" for text in sentences]


def translate_all(work: Work, translator: Translator, recipe: TranslationRecipe = RECIPE, batch_size: int = 2) -> str:
    said = io.StringIO()
    translate_dataset(work, recipe, translator, batch_size, Console(file=said, width=200))
    return said.getvalue()


def rewrite_exams(prepared: Path, changes: Sequence[dict[str, object]]) -> None:
    rows = pq.read_table(prepared / "exams.parquet").to_pylist()
    rows = [row | change for row, change in zip(rows, [*changes, *[{}] * len(rows)], strict=False)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_of(EXAMS)), prepared / "exams.parquet")


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    """A site with four exams of one section, of which two need a translation; the other sections are both there."""
    settings = site_settings(tmp_path / "site", "mayo", seed=1)
    one_section = [
        {"findings": f"No mass on the left. {LONG}", "impression": None},
        {"findings": "", "impression": "No mass on the left. Stable."},
        {"findings": "Of the test.", "impression": None, "split": "test"},
        {"findings": "Made.", "impression": "", "text_origin": "attributes", "attributes": "[]", "density": "A"},
    ]
    rewrite_exams(settings.prepared_folder(settings.datasets[0]), one_section)
    models = TranslationSettings(
        to_italian=str(tmp_path / "en-it"), to_english=str(tmp_path / "it-en"), beams=2, batch_size=2
    )
    return settings.model_copy(update={"translation": models})


@pytest.fixture
def work(site: SiteSettings) -> Work:
    return work_of(site.datasets[0], site.prepared_folder(site.datasets[0]))


def test_only_training_reports_of_one_section_are_translated_and_each_sentence_once(work: Work) -> None:
    assert work.num_exams == 2
    assert work.sentences == ("No mass on the left.", LONG, "Stable.")


def test_training_reads_the_whole_text_or_nothing(work: Work) -> None:
    assert Translations([work.prepared])("Stable.") is None

    translate_all(work, Translator())

    translations = Translations([work.prepared.parent, work.prepared])
    assert translations("No mass on the left. Stable.") == "Truly, no mass on the left. Truly, stable."
    assert translations("No mass on the left. Unknown.") is None
    (exam,) = (item for item in read_exams([("one", work.prepared)]) if item.report and not item.report.findings)
    assert text_pair(exam, np.random.default_rng(0), translations) == (
        "No mass on the left. Stable.",
        "Truly, no mass on the left. Truly, stable.",
    )


def test_the_lookup_serves_threads_and_copies(work: Work) -> None:
    translate_all(work, Translator())
    translations = pickle.loads(pickle.dumps(Translations([work.prepared])))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(translations, ["Stable."] * 100)) == {"Truly, stable."}


def test_what_was_translated_is_never_translated_again_and_what_is_not_needed_goes(work: Work) -> None:
    translate_all(work, first := Translator())
    grown = Work(work.name, work.prepared, 2, ("Stable.", "A new one."))
    translate_all(grown, second := Translator())

    assert sorted(first.asked) == sorted(work.sentences)
    assert second.asked == ["A new one."]
    translations = Translations([work.prepared])
    assert translations("A new one. Stable.") is not None and translations("No mass on the left.") is None
    assert b"heterogeneously" not in (work.prepared / TRANSLATIONS_NAME).read_bytes(), "withdrawn text is gone"


def test_another_model_or_width_translates_anew(work: Work) -> None:
    translate_all(work, Translator())
    translate_all(work, again := Translator(), TranslationRecipe("1" * 64, "2" * 64, 5))

    assert sorted(again.asked) == sorted(work.sentences)


@pytest.mark.parametrize(
    ("sentence", "translated", "is_used"),
    [
        ("A mass on the left.", "There is a mass on the left.", True),
        ("A mass on the left.", "A mass on the right.", False),
        ("A mass of 1.2 cm.", "A 1,2 cm mass.", True),
        ("A mass of 1.2 cm.", "A mass of 12 cm.", False),
        ("No mass is seen.", "There isn't any mass.", True),
        ("No mass is seen.", "A mass is seen.", False),
        ("Stable.", "", False),
        ("Stable.", "Stable " * 20, False),
    ],
)
def test_a_translation_that_tells_other_facts_is_not_used(
    tmp_path: Path, sentence: str, translated: str, is_used: bool
) -> None:
    translate_dataset(
        Work("one", tmp_path, 1, (sentence,)), RECIPE, lambda _: [translated], 4, Console(file=io.StringIO())
    )

    assert Translations([tmp_path])(sentence) == (translated if is_used else sentence)


def test_a_killed_run_goes_on_where_it_was_and_training_sees_nothing_before_the_end(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILL, str(tmp_path)], env=environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert Translations([tmp_path])("Sentence no 10.") is None

    sentences = tuple(f"Sentence no {number}." for number in range(10, 100) if number != 60)
    translate_all(Work("one", tmp_path, 5, (*sentences, "no 60.")), translator := Translator(), batch_size=8)

    assert "no 60." in translator.asked
    # Longest first, so the sentence that killed it came in the last of twelve batches.
    assert len(translator.asked) == 90 - 11 * 8
    translations = Translations([tmp_path])
    assert [translations(text) is None for text in sentences] == [False] * 89
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{TRANSLATIONS_NAME}.lock", TRANSLATIONS_NAME]
    assert (tmp_path / TRANSLATIONS_NAME).stat().st_mode & 0o077 == 0


def test_a_lookup_that_is_open_keeps_what_it_has(tmp_path: Path) -> None:
    translate_all(Work("one", tmp_path, 1, ("Stable.",)), Translator())
    before = Translations([tmp_path])
    assert before("Stable.") == "Truly, stable."

    translate_all(Work("one", tmp_path, 1, ("Other.",)), Translator())

    assert before("Stable.") == "Truly, stable." and before("Other.") is None
    assert Translations([tmp_path])("Stable.") is None


def test_one_process_at_a_time_and_damaged_files_are_named(tmp_path: Path) -> None:
    with (
        TranslationStore(tmp_path, RECIPE),
        pytest.raises(StateError, match="wait for it"),
        TranslationStore(tmp_path, RECIPE),
    ):
        pass
    unfinished = tmp_path / f"{TRANSLATIONS_NAME}.unfinished"
    unfinished.write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="delete it and run"), TranslationStore(tmp_path, RECIPE):
        pass
    unfinished.unlink()
    translate_all(Work("one", tmp_path, 1, ("Stable.",)), Translator())
    with sqlite3.connect(tmp_path / TRANSLATIONS_NAME) as base:
        base.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="delete it and run"):
        Translations([tmp_path])


def test_the_whole_command_with_real_models(
    site: SiteSettings, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("en-it", 1), ("it-en", 2)):
        write_marian(tmp_path / name, seed)
    said = io.StringIO()

    augment_text(site, Console(file=said, width=200))

    assert "2 exams of one section, 3 different sentences; 3 translated now" in " ".join(said.getvalue().split())
    published = (work.prepared / TRANSLATIONS_NAME).stat()
    assert Translations([work.prepared])(f"No mass on the left. {LONG}") is not None
    monkeypatch.delitem(sys.modules, HEAVY_MODULE)
    monkeypatch.setitem(sys.modules, "torch", None)
    augment_text(site, Console(file=said, width=200))
    assert "all translated before" in said.getvalue()
    assert HEAVY_MODULE not in sys.modules, "a second call does not even load the models"
    assert (work.prepared / TRANSLATIONS_NAME).stat() == published


def test_models_translate_what_is_longer_than_their_limit_in_parts(tmp_path: Path) -> None:
    from mammofed_site.marian import RoundTrip

    for name, seed in (("en-it", 1), ("it-en", 2)):
        write_marian(tmp_path / name, seed, longest=24)
    settings = TranslationSettings(to_italian=str(tmp_path / "en-it"), to_english=str(tmp_path / "it-en"))
    round_trip = RoundTrip(locate_models(settings), beams=2, batch_size=3, device="cpu", threads=1)
    texts = ["There is a mass.", "", LONG, "word" * 40]

    together = round_trip(texts)

    assert [bool(text) for text in together] == [True, False, True, True]
    assert len(together[2].split()) >= 8
    assert together == [round_trip([text])[0] for text in texts], "neighbours in a batch change nothing"
    assert round_trip(texts[:1]) == round_trip(texts[:1])


@pytest.mark.parametrize("missing", ["source.spm", "vocab.json", "model.safetensors", "config.json"])
def test_a_folder_that_is_not_whole_is_named_with_its_gap(site: SiteSettings, tmp_path: Path, missing: str) -> None:
    for name, seed in (("en-it", 1), ("it-en", 2)):
        write_marian(tmp_path / name, seed)
    (tmp_path / "it-en" / missing).unlink()

    with pytest.raises(ConfigurationError, match=rf"translation.to_english: .* lacks {missing}"):
        augment_text(site, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("name", "message"),
    [("/nowhere/opus", "found no folder /nowhere"), ("Helsinki-NLP/none", "cannot be fetched from huggingface.co")],
)
def test_a_model_that_is_nowhere_says_what_to_do(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(ConfigurationError, match=message):
        locate_models(TranslationSettings(to_italian=name))


def test_a_folder_of_something_else_is_no_marian_model(tmp_path: Path) -> None:
    from mammofed_site.marian import RoundTrip

    write_marian(tmp_path / "en-it", 1)
    (tmp_path / "en-it" / "source.spm").write_bytes(b"not sentencepiece")

    with pytest.raises(ConfigurationError, match="cannot be read as a MarianMT model"):
        RoundTrip((tmp_path / "en-it", tmp_path / "en-it"), beams=1, batch_size=1, device="cpu", threads=1)


def test_the_recipe_changes_with_models_and_beams(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        write_marian(tmp_path / name, seed)
    a, b = tmp_path / "a", tmp_path / "b"

    assert len({recipe_of(models, beams).digest for models in ((a, b), (b, a)) for beams in (2, 4)}) == 4


def test_the_command_line_without_anything_to_translate_needs_no_model(tmp_path: Path) -> None:
    settings = site_settings(tmp_path / "site", "mayo", seed=1)
    config = tmp_path / "mayo.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True)))
    command = [sys.executable, "-m", "mammofed_site.cli", "augment-text", "--site", "mayo", "--config", str(config)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    left = settings.prepared_folder(settings.datasets[0]) / TRANSLATIONS_NAME
    left.write_bytes(b"of reports that were withdrawn")

    said = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    assert (said.returncode, said.stderr) == (0, "")
    assert "nothing to translate" in said.stdout
    assert not left.exists()
