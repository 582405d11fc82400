"""The consortium's beginning: an authority, and each site's way to its certificate, by the commands of the quickstart.

Between real people the two fingerprints go by telephone; here the demo carries them from one command to the other.
"""

import secrets
from pathlib import Path

from mammofed_shared.files import write_whole
from mammofed_simulation.demo.configuration import DemoConfigs
from mammofed_simulation.demo.folder import DemoFolder
from mammofed_simulation.demo.processes import Processes


def enrol_all(processes: Processes, folder: DemoFolder, configs: DemoConfigs) -> None:
    """Make the authority and enrol every site.

    Raises:
        CommandFailed: one of the commands refused.
    """
    passphrase = folder.root / "authority-passphrase"
    write_whole(passphrase, secrets.token_urlsafe(24), mode=0o600)
    host = configs.run.server.listen.rpartition(":")[0]
    authority = ("--folder", str(folder.authority))
    secret = ("--passphrase-file", str(passphrase))
    consortium = ("--consortium", configs.run.consortium, "--host", host)
    root = _last_line(processes.run("authority", "fl-server", "ca", "init", *authority, *consortium, *secret))
    for site in configs.sites:
        _enrol(processes, configs, folder, site, root, (*authority, *secret))


def _enrol(
    processes: Processes, configs: DemoConfigs, folder: DemoFolder, site: str, root: str, signing: tuple[str, ...]
) -> None:
    enrol = ("site-client", "enrol", "--site", site, "--config", str(configs.site_files[site]))
    fingerprint = _last_line(processes.run(f"enrol-{site}", *enrol))
    request = configs.sites[site].identity / "request.csr"
    bundle = folder.root / "mail" / f"{site}.pem"
    told = ("--site", site, "--fingerprint", fingerprint, "--output", str(bundle))
    processes.run("authority", "fl-server", "ca", "sign", str(request), *told, *signing)
    processes.run(f"enrol-{site}", *enrol, "--certificate", str(bundle), "--root-fingerprint", root)


def _last_line(text: str) -> str:
    return text.splitlines()[-1].strip()


def install_key(folder: Path, key: bytes) -> None:
    """Give a site its pseudonym key, so that the split is the same whenever the demo has the same seed.

    A real site's key is random, made by `site-client preprocess`, and known to nobody else.
    """
    write_whole(folder / "pseudonym.key", key, mode=0o600)
