"""Makes plans: the one place where a run's settings become what a site is asked."""

from mammofed_server.delivered import DeliveredStates
from mammofed_server.run_state import RunState
from mammofed_server.schedule import Schedule, Turn, Visit
from mammofed_shared.checkpoint import Manifest
from mammofed_shared.protocol.plan import Plan


class PlanMaker:
    """Plans of one run. Equal inputs give equal plans, after any restart."""

    def __init__(self, run: RunState, schedule: Schedule) -> None:
        self._run = run
        self._epochs_total = schedule.epochs_total
        self._has_controls = any(tensor.kind == "control" for tensor in run.record.spec.tensors.values())
        self.delivered = DeliveredStates(run)
        settings = run.record.settings
        self._of_every_plan = {
            "run": settings.run,
            "rounds_total": settings.schedule.rounds,
            "seed": settings.seed,
            "task": settings.task,
            "preprocessing": settings.preprocessing.digest,
            "text_encoder": run.record.text_encoder,
            "encoder": run.record.encoder,
            "configuration": settings.digest,
            "download": settings.transfer.download,
            "upload": settings.transfer.upload,
        }

    def training(self, turn: Turn, visit: Visit, before: Manifest) -> Plan:
        """One visit of a turn that starts from ``before``."""
        return Plan(
            task_id=visit.task_id(self._run.record.settings.run),
            round=visit.round,
            visit=visit.number,
            site=visit.site,
            kind="train",
            epochs=visit.epochs,
            epochs_before=visit.epochs_before,
            epochs_total=visit.epochs_total,
            moments_from=before.moments.get(visit.site),
            state=self.delivered.reference(before),
            num_sites=len(turn.visits),
            proximal_mu=turn.phase.proximal_mu,
            control_variates=self._has_controls,
            ledger_head=self._head(before.turn),
            **self._of_every_plan,
        )

    def evaluation(self, site: str, manifest: Manifest) -> Plan:
        """The evaluation of a checkpoint at one site."""
        return self._other("evaluate", site, manifest.round, manifest.turn, state=self.delivered.reference(manifest))

    def query(self, site: str, round_number: int = 0) -> Plan:
        """The question before the first turn, or before a newcomer's first round: what data does the site hold?"""
        return self._other("query", site, round_number, 0, state=None)

    def _head(self, turn: int) -> str | None:
        return self._run.ledger.head(turn) if self._run.ledger is not None else None

    def _other(self, kind: str, site: str, round_number: int, turn: int, **state: object) -> Plan:
        return Plan(
            task_id=f"{self._run.record.settings.run}/r{round_number:04d}/v{turn:05d}/{site}/{kind}",
            round=round_number,
            visit=turn,
            site=site,
            kind=kind,
            epochs=0,
            epochs_before=0,
            epochs_total=self._epochs_total,
            control_variates=self._has_controls and kind == "evaluate",
            num_sites=1,
            ledger_head=self._head(turn),
            **state,
            **self._of_every_plan,
        )
