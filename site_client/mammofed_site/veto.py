"""The hospital's veto: while a file is there, nothing runs here and nothing leaves, whoever asks.

    <site folder>/veto.json              present: vetoed, whatever is in it
    <site folder>/vetoes/<moment>.json   vetoes that were lifted

Whoever may write into the site's folder can veto, also while no client runs; a restart of the client changes nothing.
"""

import getpass
import logging
import time
from pathlib import Path

from pydantic import ValidationError

from mammofed_shared.config.base import Settings
from mammofed_shared.errors import StateError
from mammofed_shared.files import fsync_folder, is_full, write_whole
from mammofed_site.audit import Audit

logger = logging.getLogger(__name__)

VETO_FILE = "veto.json"
LIFTED_FOLDER = "vetoes"


class Veto(Settings):
    """Who stopped this site, and when; the reason stays here."""

    by: str
    since: str
    reason: str = ""
    lifted_by: str = ""
    lifted: str = ""


def is_vetoed(folder: Path) -> bool:
    """Whether the hospital has stopped taking part; a folder that cannot be looked at counts as such."""
    try:
        return (folder / VETO_FILE).exists()
    except OSError:
        return True


def veto_of(folder: Path) -> Veto | None:
    """The veto in force, if there is one; of a file that cannot be read, only that it is there."""
    if not is_vetoed(folder):
        return None
    try:
        return Veto.model_validate_json((folder / VETO_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return Veto(by="unknown", since="unknown")


def set_veto(folder: Path, reason: str = "") -> Veto:
    """Stop this site; safe on disk and in the audit record when it returns. A veto that is in force stays as it is.

    A disk that is full stops no veto: the file is empty then, and reason and record are lost.
    """
    before = veto_of(folder)
    if before is not None:
        return before
    new = Veto(by=_user(), since=_now(), reason=reason)
    try:
        write_whole(folder / VETO_FILE, new.model_dump_json(indent=1), mode=0o600)
        Audit(folder).write("veto", by=new.by)
    except OSError as error:
        if not is_full(error):
            raise
        (folder / VETO_FILE).touch(mode=0o600)  # takes no block of the disk, and leaves as it is what was written
        fsync_folder(folder)
        logger.warning("disk full: the veto is in force, but its reason or its line in the audit record is not kept")
    return new


def lift_veto(folder: Path) -> Veto:
    """Let this site take part again, and keep the veto among those that were.

    Raises:
        StateError: there is none.
    """
    before = veto_of(folder)
    if before is None:
        raise StateError(f"{folder}: there is no veto to lift")
    after = before.model_copy(update={"lifted_by": _user(), "lifted": _now()})
    Audit(folder).write("veto lifted", by=after.lifted_by)
    kept = folder / LIFTED_FOLDER / f"{after.lifted.replace(':', '')}.json"
    write_whole(kept, after.model_dump_json(indent=1), mode=0o600)
    (folder / VETO_FILE).unlink()
    fsync_folder(folder)
    return after


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
