"""How the intake answers one file of bytes."""

from pathlib import Path

from mammofed_shared.config.import_profile import ImportProfile
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.preprocess import Prepared, Recipe, prepare_file


def answer(folder: Path, file: bytes, window: str = "paper") -> Prepared | str:
    """The row of an accepted file, or the word of a refused one."""
    path = folder / "file"
    path.write_bytes(file)
    settings = PreprocessingSettings.model_validate({"height": 64, "width": 48, "window": window})
    outcome = prepare_file(Recipe(settings, ImportProfile(), b"k" * 32, folder), path)
    return outcome if isinstance(outcome, Prepared) else str(outcome.reason)


def row_of(folder: Path, file: bytes, window: str = "paper") -> Prepared:
    """The row of a file that is accepted."""
    row = answer(folder, file, window)
    assert isinstance(row, Prepared), row
    return row


def word_of(folder: Path, file: bytes) -> str:
    """The word of a refused file; ``accepted`` of another."""
    found = answer(folder, file)
    return found if isinstance(found, str) else "accepted"
