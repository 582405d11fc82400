"""Throw-away consortia for tests: a real authority, its server and enrolled sites, in some milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mammofed_server import ca
from mammofed_shared.pki import COORDINATOR, Identity, load_identity
from mammofed_site import enrol

PASSPHRASE = b"a passphrase of the tests"


@dataclass(frozen=True, slots=True)
class Consortium:
    """Where everything of a throw-away consortium lies."""

    name: str
    authority: Path
    root_fingerprint: str
    server: Path
    """Identity folder of the server; valid for localhost and 127.0.0.1."""
    sites: dict[str, Path]
    """Identity folder of each enrolled site."""

    def server_identity(self) -> Identity:
        return load_identity(self.server, self.name, COORDINATOR)

    def site_identity(self, site: str) -> Identity:
        return load_identity(self.sites[site], self.name, site)

    def enrol(self, site: str, folder: Path, *, days: int = 365, now: datetime | None = None) -> Path:
        """Enrol a site in a folder of its own, as two people would do it; gives the folder back."""
        csr, fingerprint = enrol.request(folder, site, self.name)
        bundle = ca.sign(self.authority, csr.read_bytes(), site, fingerprint, PASSPHRASE, days, now)
        enrol.install(folder, bundle, site, self.name, self.root_fingerprint, now)
        return folder


def make_consortium(
    folder: Path,
    sites: Sequence[str] = ("central", "mayo"),
    name: str = "hospitals",
    now: datetime | None = None,
) -> Consortium:
    """Found a consortium below ``folder`` and enrol its sites; all at ``now`` (by the clock if not given)."""
    authority = ca.init(folder / "authority", name, ["localhost", "127.0.0.1"], PASSPHRASE, now)
    consortium = Consortium(
        name=name,
        authority=authority.folder,
        root_fingerprint=authority.root_fingerprint,
        server=authority.folder / ca.SERVER,
        sites={site: folder / "sites" / site for site in sites},
    )
    for site, identity_folder in consortium.sites.items():
        consortium.enrol(site, identity_folder, now=now)
    return consortium
