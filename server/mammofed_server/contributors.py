"""Who contributed to a model, by the ledger: visits, exams, data, code, filters, and whether it is signed."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.table import Table

from mammofed_server.entries import key_of
from mammofed_server.verified_words import Said
from mammofed_shared.ledger import Line


@dataclass(slots=True)
class Contributor:
    """One site, over all its visits that went into a state."""

    site: str
    num_visits: int = 0
    num_exams: int = 0
    """Of its last visit."""
    data: list[str] = field(default_factory=list)
    """Digests of the prepared tables, each once."""
    code: list[str] = field(default_factory=list)
    """Digests of the source that it ran, each once."""
    filters: list[str] = field(default_factory=list)
    """What was done to its updates before they left."""
    certificates: list[str] = field(default_factory=list)
    num_signed: int = 0
    num_failed: int = 0
    """Visits that added nothing."""


def contributors_of(lines: Iterable[Line], said: Iterable[Said]) -> list[Contributor]:
    """The sites that trained, in the order of their first visit."""
    found: dict[str, Contributor] = {}
    for line in lines:
        kind, _ = key_of(line.entry)
        for item in line.entry["failures"] if kind == "turn" else ():
            found.setdefault(item["site"], Contributor(item["site"])).num_failed += 1
        for item in line.entry["contributions"] if kind == "turn" else ():
            site = found.setdefault(item["site"], Contributor(item["site"]))
            site.num_visits += 1
            site.num_exams = int(item["num_exams"])
    for each in said:
        if each.update is not None and each.signed is not None:
            _note(found[each.site], each)
    return list(found.values())


def _note(site: Contributor, said: Said) -> None:
    assert said.signed is not None, "asked before"
    statement = said.signed.statement
    site.num_signed += 1
    filters = " ".join(f"{item.kind} {item.value:g}" if item.value else item.kind for item in statement.filters)
    for values, value in (
        (site.data, statement.data),
        (site.code, statement.code),
        (site.filters, filters or "none"),
        (site.certificates, said.signed.certificate),
    ):
        if value not in values:
            values.append(value)


def contributors_table(contributors: Iterable[Contributor]) -> Table:
    """The contributors for people; digests by their beginning."""
    table = Table("site", "visits", "exams", "without", "signed", "data", "code", "filters", "certificate")
    for item in contributors:
        table.add_row(
            item.site,
            str(item.num_visits),
            str(item.num_exams),
            str(item.num_failed or ""),
            "all" if item.num_signed == item.num_visits else f"{item.num_signed} of {item.num_visits}",
            _short(item.data),
            _short(item.code),
            ", ".join(item.filters),
            _short(item.certificates),
        )
    return table


def _short(digests: Iterable[str]) -> str:
    return " ".join(digest[:8] for digest in digests)
