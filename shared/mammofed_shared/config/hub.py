"""Where the files of a public model are: fetched once from huggingface.co, and kept in its cache on this machine."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mammofed_shared.errors import ConfigurationError

HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
"""What can be a name there; a relative folder can look the same, so a folder that exists comes first."""


def folder_from_hub(key: str, name: str, files: Sequence[str], is_whole: Callable[[Path], bool]) -> Path:
    """The folder of a model's files in the cache, fetched where it is not there yet.

    What was fetched once is kept, whatever has changed at the hub since. No code of a model is run.

    Args:
        key: of the YAML, for the error.
        files: patterns of the files to fetch.
        is_whole: whether a folder has all that is needed.

    Raises:
        ConfigurationError: it is not here, and cannot be fetched; says how to bring it.
    """
    from huggingface_hub import snapshot_download  # 26 MB, for this case alone

    patterns = list(files)
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        if is_whole(folder):
            return folder
    except OSError:
        pass  # not fetched yet
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except OSError as error:
        raise ConfigurationError(
            f"{key}: {name} is no folder here and cannot be fetched from huggingface.co. On a machine with internet: "
            f"`hf download {name} --local-dir FOLDER`; copy FOLDER here and name it in {key}"
        ) from error
