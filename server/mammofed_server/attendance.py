"""Without whom a round goes on. What was decided is in files: outcomes of the spool, then manifests.

A visit can be missed only while enough other sites are left in its round: so every round that is committed has its
quorum, and no run can be finished with less.
"""

from collections.abc import Collection, Iterable

from mammofed_server.run_state import RunState
from mammofed_server.schedule import Turn, Visit
from mammofed_shared.config.run import RunSettings
from mammofed_shared.errors import StateError


class Attendance:
    """Counts, for one round, the sites that have contributed or still can."""

    def __init__(self, settings: RunSettings, turns: Iterable[Turn], run: RunState) -> None:
        """``turns`` are all of one round; those that are committed count by their manifests."""
        self._settings = settings
        self._contributed: set[str] = set()
        self._expected: dict[str, str] = {}
        self._missed: set[str] = set()
        self._scheduled: set[str] = set()
        done = run.last_turn()
        for turn in turns:
            self._scheduled |= {visit.site for visit in turn.visits}
            if turn.number <= done:
                self._contributed |= {item.site for item in run.manifest(turn.number).contributions}
            else:
                self._expected |= {visit.task_id(settings.run): visit.site for visit in turn.visits}

    @property
    def quorum(self) -> int:
        """Sites that must contribute to the round."""
        return self._settings.quorum or len(self._scheduled)

    @property
    def may_skip_evaluations(self) -> bool:
        """Whether a missing site's evaluation is waited for."""
        return self._settings.on_absence != "wait"

    def expect(self, visit: Visit) -> None:
        """Count on one more visit: a substitute's."""
        self._expected[visit.task_id(self._settings.run)] = visit.site

    def miss(self, task_id: str) -> None:
        """A visit brings nothing."""
        self._missed.add(task_id)

    def leave(self, site: str) -> None:
        """The lead has taken a site out of the run: nobody counts on it any more."""
        if site not in self._contributed:
            self._scheduled.discard(site)
        self._expected = {task_id: name for task_id, name in self._expected.items() if name != site}

    def can_spare(self, task_id: str = "") -> bool:
        """Whether the round has its quorum without what was missed and without this visit."""
        without = {*self._missed, task_id}
        left = {site for name, site in self._expected.items() if name not in without}
        return len(self._contributed | left) >= self.quorum

    def may_be_given_up(self, task_id: str, present: Collection[str]) -> bool:
        """Whether a visit whose site is missing shall be waited for no longer; ``present`` are the sites that are
        there."""
        site = self._expected.get(task_id)
        if site is None:  # it has left
            return True
        policy = self._settings.on_absence
        has_substitute = policy == "fallback" and self._settings.substitutes.get(site) in present
        return has_substitute or (policy != "wait" and self.can_spare(task_id))


def check_quorum(settings: RunSettings, turns: Iterable[Turn], run: RunState) -> None:
    """The last look before a run is called finished.

    Raises:
        StateError: a round was committed with fewer sites than its quorum. It cannot be, unless files were changed.
    """
    rounds: dict[int, list[Turn]] = {}
    for turn in turns:
        rounds.setdefault(turn.round, []).append(turn)
    for number, of_round in rounds.items():
        attendance = Attendance(settings, of_round, run)
        for site in {*run.members().of_round(number)} - {*run.members().of_round(number + 1)}:
            attendance.leave(site)
        if not attendance.can_spare():
            raise StateError(f"round {number} has fewer sites than its quorum, so run {settings.run} is not finished")
