"""The coordinator's ledger, ``<run>/ledger.jsonl``: one line for all that was committed, each exactly once.

A line is derived from files that a rename has committed, and is written after it. Lines that a kill has prevented are
written at the next start, before a plan goes out: a plan names the line of the state that it starts from, and what the
sites sign holds that name.
"""

from collections.abc import Callable

from mammofed_server.entries import Key, entry_of, key_of, line_of_state, missing
from mammofed_server.run_state import RunState
from mammofed_shared.clock import utc_now
from mammofed_shared.ledger import FILE, Ledger, LineSignature, signed_words
from mammofed_shared.pki.signature import LEDGER_LINE, Signer

MakeSigner = Callable[[], Signer]
"""Gives what signs now: the server's certificate may be replaced while a run goes on."""


class RunLedger:
    """Keeps the ledger of one run up to date; the coordinator's main thread alone writes it."""

    def __init__(self, run: RunState, signer: MakeSigner | None = None) -> None:
        """Open the ledger and write the lines that are missing; without a signer, as in a simulation, unsigned.

        Raises:
            StateError: a line is not what was written.
        """
        self._run = run
        self._signer = signer
        self._ledger = Ledger(run.folder / FILE, self._sign)
        self._digests: dict[Key, str] = {key_of(line.entry): line.digest for line in self._ledger.lines}
        self.catch_up()

    def catch_up(self) -> None:
        """Write a line for each thing that is committed and has none."""
        for key in list(missing(self._run, self._digests)):
            self._digests[key] = self._ledger.append(entry_of(self._run, key)).digest

    def head(self, turn: int) -> str:
        """Digest of the line that tells of the state after a turn; it binds all lines before it."""
        return self._digests[line_of_state(turn)]

    def _sign(self, digest: str) -> LineSignature | None:
        if self._signer is None:
            return None
        signer, now = self._signer(), utc_now()
        return LineSignature(by=signer.certificate, at=now, value=signer.sign(LEDGER_LINE, signed_words(digest, now)))
