"""Which data a visit is of: progress of a visit that was cut counts only for the data that it was made of."""

import hashlib

from mammofed_shared.config.site import SiteSettings

_FILES = ("exams.parquet", "images.parquet", "translations.sqlite")


def data_digest(settings: SiteSettings) -> str:
    """SHA-256 over the tables and translations of all prepared data sets; a file that is not there counts as such."""
    total = hashlib.sha256()
    for dataset in settings.datasets:
        for name in _FILES:
            path = settings.prepared_folder(dataset) / name
            total.update(f"{dataset.name}/{name}/{path.is_file()}".encode())
            if path.is_file():
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
