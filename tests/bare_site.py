"""A site without exams: no more than what the light parent looks at."""

from pathlib import Path

from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.prepared import PREPROCESSING_FILE, write_counts
from mammofed_shared.exam import Split
from prepared import SMALL, TEXT_ENCODER


def bare_site(
    folder: Path, site: str = "mayo", *, server: str = "127.0.0.1:1", identity: Path | None = None
) -> SiteSettings:
    """Settings of a site below ``folder``, whose one data set says how it was prepared and holds nothing else."""
    settings = SiteSettings(
        site=site,
        consortium="hospitals",
        server=server,
        folder=folder,
        identity=identity or folder / "identity",
        datasets=(DatasetSettings(name="screening"),),
        preprocessing=SMALL,
        text_encoder=TEXT_ENCODER,
    )
    prepared = settings.prepared_folder(settings.datasets[0])
    prepared.mkdir(parents=True, exist_ok=True)
    (prepared / PREPROCESSING_FILE).write_text(SMALL.model_dump_json())
    write_counts(prepared, {Split.TRAIN: 8, Split.TEST: 6})
    return settings
