"""Configuration of a site: what hospital IT writes and ``site-client`` executes."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings, Slug
from mammofed_shared.config.preprocessing import PreprocessingSettings


class DatasetSettings(Settings):
    """One data set of a site: a PACS export and what belongs to it."""

    name: Slug
    dicom: Path | None = None
    """Folder with DICOM files, searched in all its sub-folders. Needed by `preprocess` only; see docs/data.md."""
    profile: Literal["standard", "cbis-ddsm"] = "standard"
    """How this archive says laterality, view and patient; `standard` follows DICOM."""
    reports: Path | None = None
    """CSV with columns `accession` or `study_uid`, and `report` or `findings` and `impression`."""
    attributes: Path | None = None
    """CSV with columns `accession` or `study_uid`, `finding`, `value` (`positive` or `negative`), and where known
    `subtype`, `laterality` (`left`, `right`), `position`, `depth`: one row a finding. Sentences are made from it where
    there is no report."""
    labels: Path | None = None
    """CSV with `accession` or `study_uid`, one 0/1 column a finding, and `density` (A–D): the truth that evaluation
    needs. An empty cell means that nobody knows."""
    prepared: Path | None = None
    """Folder of the prepared data set. Empty: `<folder>/datasets/<name>`."""


class SplitSettings(Settings):
    """Shares of patients, drawn by keyed hash: a new exam never moves a patient."""

    train: float = Field(0.8, ge=0, le=1)
    validation: float = Field(0.0, ge=0, le=1)
    test: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _sum_is_one(self) -> "SplitSettings":
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train, validation and test must sum to 1")
        return self


class WorkerSettings(Settings):
    """The process that trains."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(2, ge=1)
    """CPU threads of one worker. Results are equal to the bit only at the same number."""
    preprocess_workers: int = Field(2, ge=1)
    """Processes that decode DICOM files."""


class SiteSettings(Settings):
    """One hospital."""

    site: Slug
    consortium: Slug
    server: str
    """Address and port of the coordinator."""
    folder: Path
    """Everything that mammofed keeps at this site."""
    identity: Path
    """Folder with this site's key, certificate and the consortium's root, made by `enrol`."""
    datasets: tuple[DatasetSettings, ...] = Field(min_length=1)
    split: SplitSettings = SplitSettings()
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    text_encoder: Path
    """Folder with the text encoder's configuration and tokenizer (and weights)."""
    worker: WorkerSettings = WorkerSettings()

    @model_validator(mode="after")
    def _names_are_unique(self) -> "SiteSettings":
        names = [dataset.name for dataset in self.datasets]
        if len(set(names)) != len(names):
            raise ValueError(f"datasets names one twice: {', '.join(names)}")
        return self

    def prepared_folder(self, dataset: DatasetSettings) -> Path:
        """Where the prepared images and tables of a data set are."""
        return dataset.prepared or self.folder / "datasets" / dataset.name
