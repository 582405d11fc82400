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
    from huggingface_hub import snapshot_download  # 7 MB and 0.2 s, for this case alone

    cause: OSError | None = None
    for is_offline in (True, False):
        try:
            folder = Path(snapshot_download(name, allow_patterns=list(files), local_files_only=is_offline))
        except OSError as error:  # not fetched yet; or the hub does not answer, or knows no such model
            cause = error
            continue
        # Where the hub does not answer, a part that something else fetched comes back as if it were all.
        if is_whole(folder):
            return folder
    raise ConfigurationError(
        f"{key}: {name} is no folder here and cannot be fetched from huggingface.co with {', '.join(files)}. On a "
        f"machine with internet: `hf download {name} --local-dir FOLDER`; copy FOLDER here and name it in {key}"
    ) from cause
