"""The sites of the demo of risk: those of `make demo`, with patients who were followed and the frozen model."""

from pathlib import Path

from mammofed_shared.config.loading import load
from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.files import write_whole
from mammofed_simulation.demo.configuration import SITE_CONFIGS, write_settings
from mammofed_simulation.hospitals import DemoHospital

RUN_FILE = Path("configs/run.yaml")
"""Of the joint run, in the folder of a finished `make demo`."""


def joint_run_file(demo: Path) -> Path:
    """The YAML file of the run whose model is frozen here.

    Raises:
        ConfigurationError: there is no finished demo.
    """
    path = demo / RUN_FILE
    if not path.is_file() or not (demo / "results.json").is_file():
        raise ConfigurationError(f"--demo {demo}: expected the folder of a finished demo; run `make demo` first")
    return path


def write_site(root: Path, site: str, hospital: DemoHospital, encoder: Path) -> tuple[SiteSettings, Path]:
    """A site's settings and the YAML file that holds them; its pseudonym key is in its folder."""
    (export,) = hospital.datasets
    dataset = DatasetSettings(
        name=export.name,
        dicom=export.dicom,
        reports=export.reports,
        attributes=export.attributes,
        labels=export.labels,
        outcomes=export.outcomes,
        teacher=export.teacher,
    )
    known = load(SITE_CONFIGS / f"{site}.yaml", SiteSettings)
    folder = root / "sites" / site
    settings = known.model_copy(
        update={
            "folder": folder,
            "identity": folder / "identity",
            "datasets": (dataset,),
            "text_encoder": None,
            "encoder": encoder,
            "worker": known.worker.model_copy(update={"threads": 1}),  # two simulations run side by side
        }
    )
    path = root / "configs" / f"{site}.yaml"
    write_settings(path, settings, f"Site {site} of this demo.\nIts reasons: site-client explain --config {path} …")
    write_whole(folder / "pseudonym.key", hospital.key, mode=0o600)
    return settings, path
