"""The Flower strategy whose weights stay in files: each turn's updates are folded as its phase says (folding.py).

Flower's own ``Strategy.start`` runs the rounds; each of its rounds is one turn of our schedule. Everything between
two turns is on disk, so a strategy that starts again goes on with the first turn that is not committed.
"""

import logging
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from mammofed_server.attendance import Attendance, check_quorum
from mammofed_server.control import Control
from mammofed_server.disk import when_there_is_room
from mammofed_server.folding import Folded, SiteUpdate, fold
from mammofed_server.grid import FileGrid
from mammofed_server.plans import PlanMaker
from mammofed_server.quality import ask_newcomer
from mammofed_server.retention import forget_states
from mammofed_server.run_state import EvaluationRecord, RunState
from mammofed_server.schedule import Turn, Visit
from mammofed_shared.checkpoint import Contribution, Failure, Manifest
from mammofed_shared.errors import RefusalCode, RunStopped
from mammofed_shared.protocol.flower import plan_message, update_of
from mammofed_shared.protocol.statement import Countersigned

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MISSING = frozenset({RefusalCode.ABSENT.value, RefusalCode.VETOED.value})
"""Codes of visits that were given up by ``on_absence``, or by the hospital's own word."""
_REMEDY = "See docs/operate/errors.md; `fl-server resume` and a new start try again."


class FileStrategy(Strategy):
    """Plans from the last checkpoint, updates folded into the next one, turn after turn."""

    def __init__(self, run: RunState, control: Control) -> None:
        super().__init__()
        settings = run.record.settings
        self._run = run
        self._control = control
        self._settings = settings
        self._schedule = run.schedule()
        self._plans = PlanMaker(run, self._schedule)
        self._done = run.last_turn()
        self._grid: FileGrid | None = None
        self._attendance = self._attendance_of(0)

    def run_turns(self, grid: FileGrid) -> None:
        """Run every turn that is not committed yet.

        Raises:
            RunStopped, RunCancelled: it ended before the last one.
            StateError: a round was committed without its quorum.
        """
        self._grid = grid
        grid.forget(item.task_id for item in self._last_visits())  # killed between commit and forget
        for site in self._run.members().ever:
            grid.admit(site)
        self._tidy(self._done)
        while turns := self._turns_of_next_round():
            self.start(
                grid,
                initial_arrays=ArrayRecord(),
                num_rounds=len(turns),
                evaluate_fn=self._evaluate_what_is_missing,
            )
            self._done += len(turns)
        self._evaluate_what_is_missing(0, ArrayRecord())
        check_quorum(self._settings, self._schedule.turns, self._run)
        self._plans.delivered.clear()

    def _turns_of_next_round(self) -> list[Turn]:
        """The turns that are left of the round in hand, or those of the next one, once its members are settled."""
        left = self._schedule.turns[self._done :]
        if left and all(turn.round != left[0].round for turn in self._schedule.turns[: self._done]):
            self._settle_members(left[0].round)
            left = self._schedule.turns[self._done :]
        return [turn for turn in left if turn.round == left[0].round]

    def _settle_members(self, round_number: int) -> None:
        members = self._run.members()
        if members.settled >= round_number:
            return
        self._evaluate_what_is_missing(0, ArrayRecord())  # before who evaluates may change
        joined = [site for site in members.asked_to("join") if self._may_join(site, round_number)]
        members.settle(round_number, joined)
        self._run.enter()
        self._schedule = self._run.schedule()
        self._plans = PlanMaker(self._run, self._schedule)
        before, now = set(members.of_round(round_number - 1)), set(members.of_round(round_number))
        for site in sorted(before ^ now):
            logger.info("round %d: site %s has %s", round_number, site, "joined" if site in now else "left")

    def _may_join(self, site: str, round_number: int) -> bool:
        if not self._file_grid.is_there(site):
            logger.warning("round %d begins without site %s, which is to join: it is not connected", round_number, site)
            return False
        self._file_grid.admit(site)
        return ask_newcomer(self._run, self._file_grid, self._plans.query(site, round_number))

    # ── training ────────────────────────────────────────────────────────────────────────────────────────────

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A plan for each visit of the turn."""
        self._control.wait_for_go()
        turn = self._turn(server_round)
        self._attendance = self._attendance_of(turn.round)
        self._file_grid.attendance = self._attendance
        return [self._training_message(turn, visit) for visit in turn.visits]

    def _training_message(self, turn: Turn, visit: Visit) -> Message:
        before = self._run.manifest(turn.number - 1)
        plan = self._plans.training(turn, visit, before)
        state, base = self._delivered(before), self._run.state_path(turn.number - 1)
        return plan_message(plan, state, self._file_grid.node_of(visit.site), base)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold the updates into the next state and commit the turn.

        Raises:
            RunStopped: a visit failed and the run's policy is to stop, or the round would have less than its quorum.
        """
        turn = self._turn(server_round)
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        answers = [(visit, by_node[self._file_grid.node_of(visit.site)]) for visit in turn.visits]
        answers += self._ask_substitutes(turn, answers)
        contributions: list[Contribution] = []
        paths: list[Path] = []
        failures: list[Failure] = []
        for visit, reply in answers:
            task_id = visit.task_id(self._settings.run)
            if reply.has_error():
                code = RefusalCode(reply.error.code).name
                logger.error("site %s, round %d: visit failed: %s", visit.site, visit.round, code)
                failures.append(Failure(site=visit.site, task_id=task_id, code=code))
                continue
            update, path = update_of(reply)
            assert update.payload is not None and path is not None
            paths.append(path)
            contributions.append(
                Contribution(
                    site=visit.site,
                    task_id=task_id,
                    update=update.payload,
                    decoded=update.decoded,
                    metrics=update.metrics,
                    signed=update.signed,
                )
            )
        self._check_failures(turn.round, failures)
        before = self._run.manifest(turn.number - 1)

        def commit() -> None:
            folded = self._fold(turn, contributions, paths)
            self._run.commit(
                turn.number,
                turn.round,
                tuple(contributions),
                tuple(failures),
                folded.state,
                optimizer=folded.optimizer,
                norms=folded.norms,
                updates={item.site: path for item, path in zip(contributions, paths, strict=True)},
                delivered=self._plans.delivered.digest(before),
            )

        self._when_there_is_room(commit, f"the checkpoint of turn {turn.number}", before.state.size)
        shutil.rmtree(self._work, ignore_errors=True)
        self._file_grid.forget(visit.task_id(self._settings.run) for visit, _ in answers)
        self._tidy(turn.number)
        logger.info("turn %d of %d committed", turn.number, len(self._schedule.turns))
        return None, None

    def _ask_substitutes(self, turn: Turn, answers: list[tuple[Visit, Message]]) -> list[tuple[Visit, Message]]:
        """The visits of those who train in the place of sites that are missing."""
        visits = [
            replace(visit, site=self._settings.substitutes[visit.site])
            for visit, reply in answers
            if reply.has_error() and reply.error.code in _MISSING and visit.site in self._settings.substitutes
        ]
        if not visits:
            return []
        for visit in visits:
            logger.warning("round %d: site %s trains in the place of a missing one", visit.round, visit.site)
            self._attendance.expect(visit)
        messages = [self._training_message(turn, visit) for visit in visits]
        by_node = {reply.metadata.src_node_id: reply for reply in self._file_grid.send_and_receive(messages)}
        return [(visit, by_node[self._file_grid.node_of(visit.site)]) for visit in visits]

    def _check_failures(self, round_number: int, failures: list[Failure]) -> None:
        for failure in failures:
            self._attendance.miss(failure.task_id)
        given_up = {RefusalCode(code).name for code in _MISSING}
        failed = [item for item in failures if item.code not in given_up]
        what = "; ".join(f"site {item.site} failed with {item.code}" for item in failures)
        if failed and self._settings.on_failure == "stop":
            raise RunStopped(f"round {round_number}: {what}. {_REMEDY}")
        if failures and not self._attendance.can_spare():
            quorum = f"without it the round has fewer than {self._attendance.quorum} sites, its quorum"
            raise RunStopped(f"round {round_number}: {what}; {quorum}. {_REMEDY}")

    def _attendance_of(self, round_number: int) -> Attendance:
        turns = [turn for turn in self._schedule.turns if turn.round == round_number]
        attendance = Attendance(self._settings, turns, self._run)
        for site in self._run.members().asked_to("leave"):
            attendance.leave(site)
        return attendance

    def _last_visits(self) -> tuple[Contribution | Failure, ...]:
        last = self._run.manifest(self._done)
        return (*last.contributions, *last.failures)

    def _fold(self, turn: Turn, contributions: list[Contribution], paths: list[Path]) -> Folded:
        """The next state, if any update came."""
        key = self._run.record.spec.weight_key
        equal = turn.phase.weighting == "equal"
        updates = [
            SiteUpdate(item.site, path, item.whole, 1.0 if equal else item.metrics[key])
            for item, path in zip(contributions, paths, strict=True)
        ]
        before = self._run.checkpoint_folder(turn.number - 1)
        folded = fold(turn, before, updates, self._run.record.spec, self._work)
        for site, norm in folded.norms.items():
            logger.info("site %s, round %d: changed the state by a norm of %.4g", site, turn.round, norm)
        return folded

    @property
    def _work(self) -> Path:
        return self._run.folder / "folding"

    # ── evaluation ──────────────────────────────────────────────────────────────────────────────────────────

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A plan for each site that evaluates, if this turn is one to evaluate."""
        turn = self._done + server_round
        return self._evaluation_messages(turn) if self._is_evaluated(turn) else []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Commit the released numbers."""
        replies = list(replies)
        if replies:
            self._commit_evaluation(self._done + server_round, replies)
        return None

    def _evaluate_what_is_missing(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Flower calls this before the first round and after each: the former closes what a kill left open."""
        turn = self._done
        if server_round == 0 and self._is_evaluated(turn) and self._run.evaluation(turn) is None:
            self._commit_evaluation(turn, self._file_grid.send_and_receive(self._evaluation_messages(turn)))
        return None

    def _is_evaluated(self, turn: int) -> bool:
        when = self._settings.evaluation.when
        return when == "visit" or (when == "end" and turn == len(self._schedule.turns))

    def _evaluation_messages(self, turn: int) -> list[Message]:
        self._control.wait_for_go()
        manifest = self._run.manifest(turn)
        state = self._delivered(manifest)
        return [
            plan_message(self._plans.evaluation(site, manifest), state, self._file_grid.node_of(site))
            for site in self._settings.evaluation.sites or self._run.members().of_round(manifest.round)
        ]

    def _commit_evaluation(self, turn: int, replies: Iterable[Message]) -> None:
        manifest = self._run.manifest(turn)
        metrics: dict[str, dict[str, float]] = {}
        signed: dict[str, Countersigned] = {}
        failures: list[Failure] = []
        task_ids = []
        for reply in replies:
            site = self._file_grid.sites[reply.metadata.src_node_id - 1]
            task_ids.append(self._plans.evaluation(site, manifest).task_id)
            if reply.has_error():
                code = RefusalCode(reply.error.code).name
                logger.error("site %s: evaluation failed: %s", site, code)
                failures.append(Failure(site=site, task_id=task_ids[-1], code=code))
            else:
                update, _ = update_of(reply)
                metrics[site] = dict(update.metrics)
                if update.signed is not None:
                    signed[site] = update.signed
        record = EvaluationRecord(
            turn=turn,
            round=manifest.round,
            state=manifest.state.digest,
            metrics=dict(sorted(metrics.items())),
            failures=tuple(sorted(failures, key=lambda item: item.site)),
            signed=dict(sorted(signed.items())),
            delivered=self._plans.delivered.digest(manifest),
        )
        self._when_there_is_room(lambda: self._run.commit_evaluation(record), "the record of an evaluation", 2**20)
        self._file_grid.forget(task_ids)
        self._tidy(turn)

    # ── disk ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _delivered(self, manifest: Manifest) -> Path:
        """The file that sites get of a checkpoint's state."""
        delivered = self._plans.delivered
        what = f"the encoded state of turn {manifest.turn}"
        self._when_there_is_room(lambda: delivered.reference(manifest), what, manifest.state.size // 2)
        return delivered.path(manifest.turn)

    def _when_there_is_room(self, write: Callable[[], T], what: str, needed: int) -> T:
        return when_there_is_room(write, what, needed, self._run.folder, self._control)

    def _tidy(self, turn: int) -> None:
        """Remove what nothing will ask for again when ``turn`` is the last that is committed."""
        visits = [visit.number for item in self._schedule.turns[turn : turn + 1] for visit in item.visits]
        evaluated = turn if self._is_pending(turn) else turn + 1

        def is_needed(task_id: str) -> bool:
            run, _, number, _, kind = task_id.split("/")
            first = evaluated if kind == "evaluate" else min(visits, default=sys.maxsize)
            return run == self._settings.run and kind != "query" and int(number[1:]) >= first

        self._file_grid.clear(is_needed)
        forget_states(self._run, self._is_pending)

    def _is_pending(self, turn: int) -> bool:
        return self._is_evaluated(turn) and not self._run.evaluation_path(turn).exists()

    # ── what Flower asks for besides ────────────────────────────────────────────────────────────────────────

    def summary(self) -> None:
        """Log what will be run."""
        logger.info(
            "run %s: %s, turn %d of %d next",
            self._settings.run,
            self._settings.schedule.in_words,
            self._done + 1,
            len(self._schedule.turns),
        )

    def _turn(self, server_round: int) -> Turn:
        return self._schedule.turns[self._done + server_round - 1]

    @property
    def _file_grid(self) -> FileGrid:
        assert self._grid is not None, "run_turns sets the grid"
        return self._grid


def make_strategy(run: RunState, control: Control) -> FileStrategy:
    """The strategy of the run's schedule."""
    return FileStrategy(run, control)
