"""`site-client explain`: a page on one exam's risk, from models of random weights over a small prepared site."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from dicom_fixtures import write_exam
from exports import write_export
from frozen_encoders import write_frozen_encoder
from html_pages import PageReader
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_site import cli
from mammofed_site.explanations.command import ExplainRequest, explain_site_exam
from mammofed_site.preprocess import preprocess
from prepared import SMALL, site_settings

KEY = bytes(32)


class Models:
    """The folders of all exports."""

    def __init__(self, folder: Path) -> None:
        self.encoder = write_frozen_encoder(folder / "encoder")
        self.mirai = write_export(folder / "mirai", "risk-mirai", self.encoder)
        self.asymmirai = write_export(folder / "asymmirai", "risk-asymmirai", self.encoder)
        self.autoencoder = write_export(folder / "sae", "sae", self.encoder)

    def request(self, **changed: object) -> ExplainRequest:
        values = {"risk": (self.mirai, self.asymmirai), "autoencoder": self.autoencoder}
        return ExplainRequest(**({**values, "year": 5, "permutations": 2, "num_neurons": 4} | changed))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, models: Models) -> SiteSettings:
    settings = site_settings(tmp_path_factory.mktemp("mayo"), "mayo", 4)
    return settings.model_copy(update={"encoder": models.encoder})


def explained(site: SiteSettings, given: str, request: ExplainRequest) -> Path:
    return explain_site_exam(site, KEY, given, request, Console(quiet=True))


@pytest.fixture(scope="module")
def exam(site: SiteSettings) -> str:
    return next(
        exam.exam for exam in read_exams([("screening", site.folder / "datasets/screening")]) if exam.split == "test"
    )


@pytest.fixture(scope="module")
def page(site: SiteSettings, models: Models, exam: str) -> Path:
    return explained(site, exam, models.request())


def test_the_command_writes_a_page_that_only_its_owner_reads(
    tmp_path: Path, site: SiteSettings, models: Models, exam: str
) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(yaml.safe_dump(json.loads(site.model_dump_json(exclude_defaults=True))))
    heads = ["--risk", str(models.mirai), "--risk", str(models.asymmirai), "--autoencoder", str(models.autoencoder)]
    arguments = ["explain", "--site", "mayo", "--config", str(config), "--exam", exam, *heads, "--permutations", "2"]
    said = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "300"}, catch_exceptions=False)

    assert said.exit_code == 0, said.output
    found = Path(said.output.strip().splitlines()[-1].removeprefix("look at it: "))
    assert found == site.folder / "explanations" / f"{exam}.html"
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    assert exam not in (site.folder / "explain.log").read_text(), "which exams are looked at is nobody's business"


def test_the_page_needs_nothing_else(page: Path) -> None:
    reader = PageReader(page.read_text())

    assert len([link for link in reader.links if link.startswith("data:image/jpeg;base64,")]) == 4
    assert len([link for link in reader.links if link.startswith("data:image/png;base64,")]) == 8
    assert all(link.startswith(("data:image/", "#view-")) for link in reader.links)
    assert "default-src 'none'" in page.read_text()


def test_the_page_says_what_it_is_and_where_its_models_come_from(page: Path, models: Models) -> None:
    text = " ".join(PageReader(page.read_text()).text.split())

    assert "For research only. Not a medical device." in text
    assert encoder_digest(models.encoder) in text
    assert all(f"{task}-run" in text for task in ("risk-mirai", "risk-asymmirai", "sae"))
    assert "within 5 years" in text
    assert len(re.findall(r"\d+\.\d %", text)) > 10


def test_equal_calls_give_equal_bytes(page: Path, site: SiteSettings, models: Models, exam: str) -> None:
    first = page.read_bytes()

    assert explained(site, exam, models.request()).read_bytes() == first


def test_asymmirai_alone_shows_where_the_breasts_differ(site: SiteSettings, models: Models, exam: str) -> None:
    found = explained(site, exam, models.request(risk=(models.asymmirai,), autoencoder=None))
    text = PageReader(found.read_text()).text

    assert "Asymmetry" in text
    assert "Neuron" not in text


def test_models_that_do_not_go_together_are_refused(
    tmp_path: Path, site: SiteSettings, models: Models, exam: str
) -> None:
    other = write_export(tmp_path / "other", "sae", write_frozen_encoder(tmp_path / "encoder", seed=2))
    refused = [
        (models.request(risk=()), "--risk is needed"),
        (models.request(risk=(models.mirai, models.mirai)), "at most one folder of each risk task"),
        (models.request(autoencoder=None), "go together"),
        (models.request(risk=(models.asymmirai,)), "go together"),
        (models.request(risk=(models.autoencoder,)), "found one of sae"),
        (models.request(autoencoder=other), "stands on the frozen model"),
        (models.request(autoencoder=tmp_path), "expected the export of a run of sae"),
    ]
    for request, words in refused:
        with pytest.raises(ConfigurationError, match=words):
            explained(site, exam, request)
    with pytest.raises(ConfigurationError, match="`encoder` of the site's YAML"):
        explained(site.model_copy(update={"encoder": None}), exam, models.request())


def test_an_exam_that_is_not_here_is_said_without_its_number(site: SiteSettings, models: Models) -> None:
    with pytest.raises(DataError, match="no data set of this site has this exam") as caught:
        explained(site, "ACC-CANARY", models.request())

    assert "CANARY" not in str(caught.value)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Iterator[SiteSettings]:
    """A site with DICOM files, whose header and report name somebody."""
    folder = tmp_path_factory.mktemp("hospital")
    for day in ("20200110", "20210110"):
        write_exam(folder / "dicom", "CANARY", day, PatientName="CANARYNAME^ANN", AccessionNumber=f"CANARY{day}")
    reports = folder / "reports.csv"
    reports.write_text("accession,findings,impression\nCANARY20200110,There is a mass. Seen by Dr Who.,BI-RADS 0.\n")
    settings = site_settings(folder / "base", "mayo", 1).model_copy(
        update={
            "folder": folder / "site",
            "datasets": (DatasetSettings(name="screening", dicom=folder / "dicom", reports=reports),),
            "encoder": models.encoder,
            "preprocessing": SMALL,
        }
    )
    preprocess(settings, settings.datasets[0], KEY, lambda done, total: None)
    yield settings


def test_an_exam_is_found_by_accession_number_study_uid_and_pseudonym(hospital: SiteSettings, models: Models) -> None:
    study = "1.2." + str(int(b"CANARY-20200110".hex(), 16))
    request = models.request(risk=(models.asymmirai,), autoencoder=None)
    pages = [explained(hospital, given, request) for given in ("CANARY20200110", study)]

    assert pages[0] == pages[1]
    assert explained(hospital, pages[0].stem, request) == pages[0]
    assert explained(hospital, "CANARY20210110", request) != pages[0]


def test_no_identifier_stands_in_the_page(hospital: SiteSettings, models: Models) -> None:
    page = explained(hospital, "CANARY20200110", models.request())
    text = page.read_text()

    assert "There is a mass." in text, "the report is there"
    assert "CANARY" not in text
    assert "20200110" not in text
    assert str(hospital.folder) not in text


def test_an_exam_without_report_says_so(hospital: SiteSettings, models: Models) -> None:
    page = explained(hospital, "CANARY20210110", models.request())

    assert "This exam has no report, so no sentence can be named." in page.read_text()
