"""A site's own ledger against the coordinator's: neither can hide or invent what the other has in writing."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from mammofed_server.verified_words import Said
from mammofed_shared.ledger import Line
from mammofed_shared.ledger_check import Finding, read_chain
from mammofed_shared.protocol.statement import Signed


def check_site_ledger(path: Path, run: str, lines: list[Line], said: list[Said]) -> Iterator[Finding]:
    """What a site's ledger says otherwise than the coordinator's.

    Args:
        path: the site's ``ledger.jsonl``.
        run: name of the run; a site's ledger may tell of others, too.
        lines: the intact lines of the coordinator's ledger.
        said: the contributions in them.
    """
    if not path.exists():
        yield Finding("incomplete", str(path), "there is no such file")
        return
    own, findings = read_chain(path)
    yield from findings
    theirs = {item.signed.statement.digest for item in said if item.signed is not None}
    heads = {line.digest for line in lines}
    stated, sites = set(), set()
    received = {line.entry.get("statement") for line in own if line.entry.get("kind") == "received"}
    for line in own:
        signed = _signed(line)
        if signed is None or signed.statement.task_id.split("/")[0] != run:
            continue
        digest, task_id = signed.statement.digest, signed.statement.task_id
        stated.add(digest)
        sites.add(task_id.split("/")[3])
        where = f"{path.name} of the site, line {line.number}"
        if digest in received and digest not in theirs:
            yield Finding(
                "tampered", where, f"the coordinator gave a receipt for {task_id}, and its ledger does not tell of it"
            )
        if signed.statement.ledger_head is not None and signed.statement.ledger_head not in heads:
            yield Finding(
                "tampered",
                where,
                f"the plan of {task_id} named line {signed.statement.ledger_head} of the coordinator's ledger, which "
                "has it no more: it was written anew",
            )
    for item in said:
        if item.site in sites and item.signed is not None and item.signed.statement.digest not in stated:
            where = f"ledger.jsonl, line {item.number}, {item.site}"
            yield Finding("tampered", where, "the site's own ledger has no such statement")
    if not sites:
        yield Finding("incomplete", path.name, f"this site's ledger tells of no contribution to run {run}")


def _signed(line: Line) -> Signed | None:
    try:
        return Signed.model_validate(line.entry["signed"])
    except (KeyError, ValidationError):
        return None
