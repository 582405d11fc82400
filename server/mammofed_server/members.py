"""Who takes part in which round. A site joins or leaves between two rounds, while the run goes on.

<run>/members.json        what was settled: written whole before the first plan of a round is made
<run>/member-requests/    what the lead has asked for since: one file a site, with the word `join` or `leave`

The commands write requests, the coordinator alone settles them; the members of a round never change once it has begun.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from mammofed_shared.config.base import Settings, Slug
from mammofed_shared.errors import StateError
from mammofed_shared.files import write_whole

Word = Literal["join", "leave"]
_EVER = 10**9
"""A round after all others."""
_site_name: TypeAdapter[str] = TypeAdapter(Slug)


class Change(Settings):
    """A site that joined or left at the beginning of a round."""

    round: int
    site: Slug
    word: Word


class MembersRecord(Settings):
    """All changes of a run, in order."""

    settled: int = 0
    """Last round whose members are fixed."""
    changes: tuple[Change, ...] = ()


class Members:
    """The members of a run, round by round. Safe to read from every thread; one thread settles."""

    def __init__(self, folder: Path, first: tuple[str, ...]) -> None:
        """``folder`` is the run's, ``first`` the sites that it began with."""
        self._first = first
        self._path = folder / "members.json"
        self._requests = folder / "member-requests"

    @property
    def _record(self) -> MembersRecord:
        """As it is on disk now: whoever settles may be another object than whoever asks."""
        if not self._path.exists():
            return MembersRecord()
        return MembersRecord.model_validate_json(self._path.read_text(encoding="utf-8"))

    def of_round(self, round_number: int) -> tuple[str, ...]:
        """Members in a round, in the order of the run's sites, then of joining."""
        members = list(self._first)
        for change in self._record.changes:
            if change.round <= round_number:
                if change.site in members:
                    members.remove(change.site)
                if change.word == "join":
                    members.append(change.site)
        return tuple(members)

    @property
    def ever(self) -> tuple[str, ...]:
        """Every site that is or was a member; its place never changes."""
        return tuple(dict.fromkeys((*self._first, *(change.site for change in self._record.changes))))

    @property
    def settled(self) -> int:
        """Last round whose members are fixed."""
        return self._record.settled

    def asked_to(self, word: Word) -> tuple[str, ...]:
        """Sites for which the lead has asked this and it is not settled yet."""
        return tuple(site for site, asked in _requests(self._requests) if asked == word)

    def ask(self, site: str, word: Word, least: int = 1) -> None:
        """Ask, in the lead's name, that a site joins or leaves before the next round; the last word on a site counts.

        Args:
            site: its name.
            word: what it shall do.
            least: members that must be left.

        Raises:
            StateError: it is a member already, or none, or its name cannot be one, or too few would be left; the
                message says which.
        """
        try:
            _site_name.validate_python(site)
        except ValueError as error:
            raise StateError(f"{site!r} cannot be a site: lower-case letters, digits and inner dashes") from error
        members, path = self.of_round(_EVER), self._requests / site
        if (word == "join") == (site in members):
            if path.exists():  # what was asked before is taken back
                path.unlink()
                return
            is_what = "a member already" if word == "join" else "no member"
            raise StateError(f"{site} is {is_what} of this run: {', '.join(members)}")
        num_left = len(set(members) - {site, *self.asked_to("leave")})
        if word == "leave" and num_left < least:
            raise StateError(f"without {site} the run would have {num_left} sites; its quorum is {least}")
        write_whole(path, word)

    def settle(self, round_number: int, joined: Iterable[str]) -> None:
        """Fix the members of a round that has not begun: all who asked to leave have left, ``joined`` have joined."""
        record = self._record
        if round_number <= record.settled:
            return
        now = self.of_round(round_number)
        words: list[tuple[str, Word]] = [(site, "leave") for site in self.asked_to("leave") if site in now]
        words += [(site, "join") for site in joined if site not in now]
        changes = tuple(Change(round=round_number, site=site, word=word) for site, word in words)
        record = MembersRecord(settled=round_number, changes=(*record.changes, *changes))
        write_whole(self._path, record.model_dump_json(indent=1))
        for site in (*self.asked_to("leave"), *joined):
            (self._requests / site).unlink(missing_ok=True)


def _requests(folder: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix == "":  # else one that is being written
            with suppress(FileNotFoundError):  # settled meanwhile
                found.append((path.name, path.read_text(encoding="utf-8")))
    return found
