"""What a prepared data set says of itself without its tables: all that the process with the network connection reads.

<prepared>/preprocessing.json    the PreprocessingSettings it was made with; written last
<prepared>/counts.json           number of exams with a text, by split
"""

import json
from collections.abc import Mapping
from pathlib import Path

from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Split
from mammofed_shared.files import write_whole

PREPROCESSING_FILE = "preprocessing.json"
COUNTS_FILE = "counts.json"


def read_preprocessing(prepared: Path) -> PreprocessingSettings:
    """The settings with which a data set was prepared.

    Raises:
        DataError: it was not prepared, or not to the end.
    """
    try:
        return PreprocessingSettings.model_validate_json((prepared / PREPROCESSING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("a data set is not prepared: run `site-client preprocess` first") from error


def write_counts(prepared: Path, counts: Mapping[Split, int]) -> None:
    """Write how many exams with a text each split has."""
    write_whole(prepared / COUNTS_FILE, json.dumps({str(split): counts.get(split, 0) for split in Split}))


def read_counts(prepared: Path) -> dict[Split, int]:
    """How many exams with a text each split has.

    Raises:
        DataError: it was not prepared, or not to the end.
    """
    read_preprocessing(prepared)
    try:
        found = json.loads((prepared / COUNTS_FILE).read_text(encoding="utf-8"))
        return {split: int(found[split]) for split in Split}
    except (OSError, ValueError, KeyError) as error:
        raise DataError("a data set has no counts: run `site-client preprocess` again") from error
