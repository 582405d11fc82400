"""The YAML files of one demo: those of ``configs/``, with seed, port and folders of this demo.

They are written out instead of given as overrides, so that every command can be run again by hand as it stands.
"""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.files import write_whole
from mammofed_simulation.demo.folder import DemoFolder

RUN_CONFIG = Path("configs/run/demo.yaml")
SITE_CONFIGS = Path("configs/site")
_PLACEHOLDER = ("demo-output", "seed-1")


@dataclass(frozen=True, slots=True)
class DemoConfigs:
    """The joint run and its sites, and the YAML file of each."""

    run: RunSettings
    run_file: Path
    sites: dict[str, SiteSettings]
    site_files: dict[str, Path]


def write_configs(folder: DemoFolder, seed: int) -> DemoConfigs:
    """Write the YAML files of a demo's joint run, on a port that is free now.

    Raises:
        ConfigurationError: the command was not started in the repository, or one of its files is wrong.
    """
    if not RUN_CONFIG.is_file():
        raise ConfigurationError(f"{RUN_CONFIG} is not here: start the demo in the repository's root, with `make demo`")
    address = f"127.0.0.1:{_free_port()}"
    values = _moved(RUN_CONFIG, folder.root)
    values["seed"] = seed
    values["server"]["listen"] = address
    run_file = folder.configs / "run.yaml"
    _write(run_file, values, f"The joint run of this demo.\nRun it by hand: fl-server --config {run_file}")
    run = load(run_file, RunSettings)
    site_files = {}
    for site in run.sites:
        path = site_files[site] = folder.configs / f"{site}.yaml"
        values = _moved(SITE_CONFIGS / f"{site}.yaml", folder.root) | {"server": address}
        _write(path, values, f"Site {site} of this demo.\nRun it by hand: site-client --site {site} --config {path}")
    sites = {site: load(path, SiteSettings) for site, path in site_files.items()}
    return DemoConfigs(run, run_file, sites, site_files)


def write_settings(path: Path, settings: RunSettings | SiteSettings, what: str) -> None:
    """Write settings as YAML; what has its default is left out."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    if isinstance(settings, RunSettings):
        values["task"]["name"] = settings.task.name  # by which tasks are told apart, so it has no default in a file
    _write(path, values, what)


def _moved(path: Path, root: Path) -> dict[str, Any]:
    """Content of a YAML file whose folder ``demo-output/seed-1`` is now ``root``."""
    values = _with_root(yaml.safe_load(path.read_text(encoding="utf-8")), root)
    assert isinstance(values, dict), f"{path} is one of ours"
    return values


def _with_root(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {key: _with_root(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_root(inner, root) for inner in value]
    if isinstance(value, str) and Path(value).parts[:2] == _PLACEHOLDER:
        return str(root.joinpath(*Path(value).parts[2:]))
    return value


def _write(path: Path, values: dict[str, Any], what: str) -> None:
    comment = "".join(f"# {line}\n" for line in what.splitlines())
    write_whole(path, comment + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
