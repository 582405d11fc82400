"""`site-client atlas`: what neurons stand for at a small prepared site, with an autoencoder of random weights."""

import base64
import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from typer.testing import CliRunner

from exports import write_export
from frozen_encoders import write_frozen_encoder
from html_pages import PageReader
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.image_text import load_grey
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Report
from mammofed_shared.interpretability.ablation import Reader, sentences_lost
from mammofed_shared.interpretability.pointing import Box
from mammofed_shared.interpretability.sentence import report_sentences
from mammofed_site import cli
from mammofed_site.explanations import atlas, atlas_passes
from mammofed_site.explanations.atlas_passes import AtlasImage
from mammofed_site.explanations.command import AtlasRequest, make_site_atlas
from mammofed_site.explanations.models import frozen_model, load_reader
from mammofed_site.explanations.pictures import cell_box, thumbnail_uri
from mammofed_site.torch_device import device_of
from prepared import site_settings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    return write_export(tmp_path_factory.mktemp("sae"), "sae", encoder)


@pytest.fixture
def site(tmp_path: Path, encoder: Path) -> SiteSettings:
    return site_settings(tmp_path / "mayo", "mayo", 4).model_copy(update={"encoder": encoder})


def request(autoencoder: Path, most: int = 1000) -> AtlasRequest:
    return AtlasRequest(autoencoder, num_neurons=5, images_per_neuron=3, most_images=most)


def test_the_command_writes_a_page_of_the_most_active_neurons(
    tmp_path: Path, site: SiteSettings, autoencoder: Path
) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(yaml.safe_dump(json.loads(site.model_dump_json(exclude_defaults=True))))
    arguments = ["atlas", "--site", "mayo", "--config", str(config), "--autoencoder", str(autoencoder)]
    said = CliRunner().invoke(
        cli.app, [*arguments, "--neurons", "5", "--pictures", "3"], env={"COLUMNS": "300"}, catch_exceptions=False
    )

    assert said.exit_code == 0, said.output
    page = site.folder / "explanations" / "atlas.html"
    assert said.output.strip().endswith(f"look at it: {page}")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    reader = PageReader(page.read_text())
    assert reader.text.count("of all activity") == 5
    assert len(reader.links) == 5 * 3
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    assert "56images were looked at" in reader.text.replace("\n", "")


def test_a_neurons_sentence_is_that_of_its_images_reports_which_drops_most(
    site: SiteSettings, autoencoder: Path
) -> None:
    frozen = frozen_model(site)
    reader, _ = load_reader(frozen, autoencoder, device_of("cpu"))
    images = atlas.atlas_images(site, frozen, 12)
    top = atlas_passes.choose_images(reader, images, site.folder / "top", 3, 1, lambda done, total: None)
    neurons = top.busiest(6)
    told: list[tuple[int, int]] = []
    named = atlas_passes.name_neurons(reader, images, top, neurons, site.folder, lambda *done: told.append(done))

    assert named, "the likeness of some sentence drops"
    assert told[-1][0] == told[-1][1]
    for neuron, sentence in named.items():
        shown = [images[image] for image, _, _ in top.of_neuron(neuron)]
        assert any(sentence in report_sentences(item.report) for item in shown)
        best = {item: _mean_drop(reader, shown, neuron, item) for item in _all_sentences(shown)}
        assert best[sentence] == pytest.approx(max(best.values()), abs=1e-6)


def _all_sentences(images: list[AtlasImage]) -> set[str]:
    return {sentence for item in images for sentence in report_sentences(item.report)}


def _mean_drop(reader: Reader, images: list[AtlasImage], neuron: int, sentence: str) -> float:
    """By the way of a single exam: each image alone, with a report of one sentence."""
    drops = []
    for item in images:
        grey = torch.from_numpy(load_grey(item.image)[None])
        coalitions = reader.coalitions(reader.code(reader.encoder.image_encoder.feature_map(grey)))
        drops += sentences_lost(reader, coalitions, Report(sentence, ""), [[neuron]])
    return float(np.mean([lost[0].drop for lost in drops]))


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(("name", "at"), [("images", 20), ("sentences", 6)])
def test_an_atlas_that_was_interrupted_is_gone_on_with(
    site: SiteSettings, autoencoder: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    undisturbed = make_site_atlas(site, request(autoencoder), Console(quiet=True)).read_bytes()
    for path in (site.folder / "explanations").glob("atlas-*/*"):
        _remove(path)
    monkeypatch.setattr(atlas_passes, "_KEEP_EVERY_S", -1.0)
    coded: list[int] = []
    plain = atlas_passes._code
    monkeypatch.setattr(atlas_passes, "_code", lambda *given: coded.append(1) or plain(*given))

    def interrupted(pass_name: str, done: int, total: int) -> None:
        if (pass_name, done >= at) == (name, True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atlas.make_atlas(site, request(autoencoder), interrupted)
    num_before = len(coded)
    page = atlas.make_atlas(site, request(autoencoder), lambda *told: None)

    assert page.read_bytes() == undisturbed
    num_again = len(coded) - num_before
    coded.clear()
    for path in (site.folder / "explanations").glob("atlas-*/*"):
        _remove(path)
    atlas.make_atlas(site, request(autoencoder), lambda *told: None)
    assert num_before + num_again - len(coded) in (0, 1), "at most the image in hand is looked at again"
    assert num_again < len(coded)


def test_more_neurons_of_the_same_images_take_no_second_look_at_them(site: SiteSettings, autoencoder: Path) -> None:
    make_site_atlas(site, request(autoencoder), Console(quiet=True))
    told: list[tuple[str, int, int]] = []
    page = atlas.make_atlas(site, replace(request(autoencoder), num_neurons=9), lambda *said: told.append(said))

    assert [said for said in told if said[0] == "images"] == [("images", 56, 56)]
    assert PageReader(page.read_text()).text.count("of all activity") == 9


def test_an_image_that_cannot_be_read_is_passed_over(site: SiteSettings, autoencoder: Path) -> None:
    broken = atlas.atlas_images(site, frozen_model(site), 1)[0].image
    broken.path.write_bytes(b"")
    with pytest.raises(DataError):
        load_grey(broken)

    page = make_site_atlas(site, request(autoencoder, most=9), Console(quiet=True))
    assert "9images were looked at" in PageReader(page.read_text()).text.replace("\n", "")


def test_an_atlas_of_no_more_images_than_are_asked_for_takes_them_by_their_digests(
    site: SiteSettings, encoder: Path
) -> None:
    images = atlas.atlas_images(site, frozen_model(site), 7)
    digests = [item.image.png_sha256 for item in images]

    assert len(digests) == 7
    assert digests == sorted(digests)
    assert digests == [item.image.png_sha256 for item in atlas.atlas_images(site, frozen_model(site), 1000)][:7]


def test_a_thumbnail_marks_the_cell() -> None:
    box = cell_box((2, 1), (4, 5), (400, 250))
    assert box == Box(200, 50, 300, 100)

    encoded = base64.b64decode(thumbnail_uri(np.full((400, 250), 90, np.uint8), box).partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (200, 125, 3)
    red = (picture[:, :, 2].astype(int) - picture[:, :, 0]) > 60
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((100, 150, 25, 50), abs=3)
