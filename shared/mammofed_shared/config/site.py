"""Configuration of a site: what hospital IT writes and ``site-client`` executes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings, Slug
from mammofed_shared.config.features import FeatureCacheSettings
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.preprocessing import PreprocessingSettings


class ChoiceSettings(Settings):
    """Which exams of a data set count, as far as the hospital's tables and reports say what they are (paper:
    Dataset)."""

    birads: tuple[Annotated[int, Field(ge=0, le=6)], ...] = (0, 1, 2)
    """BI-RADS categories to take, where the category is known; an exam of unknown category is taken."""
    exams: Literal["any", "complete"] = "any"
    """`complete`: only exams that have both views of both breasts."""
    kind: Literal["screening", "any"] = "screening"
    """`screening` leaves out exams that are known to be diagnostic."""
    cohort: Literal["none", "embed"] = "none"
    """`embed` marks positive and negative exams by EMBED's case definition (docs/reports.md), and takes their
    BI-RADS category as it is."""


class DatasetSettings(Settings):
    """One data set of a site: a PACS export and what belongs to it."""

    name: Slug
    dicom: Path | None = None
    """Folder with DICOM files, searched in all its sub-folders. Needed by `preprocess` only; see docs/data.md."""
    profile: str = "standard"
    """Import profile: how this archive says laterality, view and patient. `standard` follows DICOM, `cbis-ddsm` is that
    archive's, and a path ending in `.yaml` is one of your own (docs/data.md)."""
    reports: Path | None = None
    """A CSV, or a folder with one text file or DICOM SR object an exam (docs/reports.md)."""
    reports_with_identifiers: Literal["scrub", "drop", "keep"] = "scrub"
    """What becomes of a report with a name, date or number in it: `scrub` strikes them out, `drop` leaves the report
    out, `keep` takes it as it is, for hospitals whose reports are de-identified already."""
    attributes: Path | None = None
    """CSV of structured findings. Sentences are made from it where there is no report."""
    attributes_mapping: str = "standard"
    """What the columns of `attributes` mean: `standard` or `embed`, or the path of a YAML file (docs/reports.md)."""
    labels: Path | None = None
    """CSV with `accession` or `study_uid`, one 0/1 column a finding, and `density` (A–D): the truth that evaluation
    needs. An empty cell means that nobody knows."""
    outcomes: Path | None = None
    """CSV with `accession` or `study_uid`, `years_to_cancer` and `years_to_last_followup`: the truth of risk
    prediction."""
    teacher: Path | None = None
    """CSV with `accession` or `study_uid`, and MIRAI's risk of the years 1 to 5 in `year1` to `year5`."""
    choose: ChoiceSettings = ChoiceSettings()
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
    """The processes that train (docs/training.md, Hardware)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = Field(1, ge=1, le=64)
    """Processes that train together; one for each GPU."""
    distribution: Literal["none", "ddp", "zero-1", "zero-2", "zero-3"] = "none"
    """How they share the work: `ddp` copies the model into each; DeepSpeed's `zero-1` to `zero-3` divide the
    optimizer's moments, the gradients too, and the weights too. `none` is one process."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Most samples that one process computes at once; the batch stays whole. Empty: all of its share, halved when
    memory runs out."""
    compile: bool = False
    """Compile the encoders with torch.compile: minutes at the start of each visit, then shorter steps on a GPU."""
    threads: int = Field(2, ge=1)
    """CPU threads of each process. Results are equal to the bit only at the same number."""
    loaders: int = Field(2, ge=1)
    """Threads of each process that read and augment images ahead; no result depends on it."""
    checkpoint_every_min: float = Field(10.0, ge=0)
    """How often a visit writes down where it is; no more than this is done again after a kill."""
    preprocess_workers: int = Field(2, ge=1)
    """Processes that decode DICOM files."""

    @model_validator(mode="after")
    def _processes_share_in_some_way(self) -> "WorkerSettings":
        if self.processes > 1 and self.distribution == "none":
            raise ValueError("distribution must be ddp, zero-1, zero-2 or zero-3 where processes is above 1")
        return self


class TranslationSettings(Settings):
    """`augment-text`: the second text of reports that have one section (docs/reports.md)."""

    to_italian: str = "Helsinki-NLP/opus-mt-en-it"
    """MarianMT model, English to Italian: a folder, or a name at huggingface.co, which is fetched once."""
    to_english: str = "Helsinki-NLP/opus-mt-it-en"
    """The same, Italian to English."""
    beams: int = Field(4, ge=1, le=32)
    """Width of the search; more is slower and rarely better."""
    batch_size: int = Field(16, ge=1, le=4096)
    """Sentences that are translated together."""


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
    text_encoder: Path | None = None
    """Folder with the text encoder's configuration, tokenizer and weights: the run's files. Or a name at huggingface.co
    such as `answerdotai/ModernBERT-base`, which is fetched once. For runs whose task trains one."""
    encoder: Path | None = None
    """Folder of the frozen Mammo-FM model, as `fl-server export` writes it: the run's files. For runs whose task stands
    on one."""
    features: FeatureCacheSettings = FeatureCacheSettings()
    worker: WorkerSettings = WorkerSettings()
    policy: PolicySettings = PolicySettings()
    """This hospital's rules, or the path of a YAML file with them (docs/operate/policy.md)."""
    translation: TranslationSettings = TranslationSettings()

    @model_validator(mode="after")
    def _names_are_unique(self) -> "SiteSettings":
        names = [dataset.name for dataset in self.datasets]
        if len(set(names)) != len(names):
            raise ValueError(f"datasets names one twice: {', '.join(names)}")
        return self

    def prepared_folder(self, dataset: DatasetSettings) -> Path:
        """Where the prepared images and tables of a data set are."""
        return dataset.prepared or self.folder / "datasets" / dataset.name
