from collections import Counter
from pathlib import Path

import dicomsdl
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.uid import RLELossless

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.data.phantom import phantom_exam
from mammofed_shared.data.phantom_outcome import phantom_outcome, phantom_teacher
from mammofed_shared.dicom.pixel_data import Shape
from mammofed_shared.dicom.read import minimal_object
from mammofed_shared.exam import Laterality, View
from mammofed_simulation.hospitals import FOLLOWED, HOSPITALS, DemoHospital, write_hospital
from mammofed_simulation.phantom_dicom import rle_frame
from mammofed_site.preprocess import preprocess

SHAPE = (190, 114)


def small(name: str, folder: Path, seed: int = 1) -> DemoHospital:
    return write_hospital(name, folder / name, seed, patients=2, workers=1, shape=SHAPE)


def site_of(hospital: DemoHospital, folder: Path) -> SiteSettings:
    return SiteSettings.model_validate(
        {
            "site": hospital.name,
            "consortium": "demo",
            "server": "localhost:1",
            "folder": folder / "site" / hospital.name,
            "identity": folder,
            "text_encoder": folder,
            "preprocessing": {"height": 190, "width": 114},
            "worker": {"preprocess_workers": 1},
            "datasets": [
                {
                    "name": dataset.name,
                    "dicom": dataset.dicom,
                    "profile": dataset.profile,
                    "reports": dataset.reports,
                    "attributes": dataset.attributes,
                    "labels": dataset.labels,
                    "outcomes": dataset.outcomes,
                    "teacher": dataset.teacher,
                }
                for dataset in hospital.datasets
            ],
        }
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", HOSPITALS)
def test_an_export_is_prepared_whole_but_for_its_strays(name: str, tmp_path: Path) -> None:
    hospital = small(name, tmp_path)
    settings = site_of(hospital, tmp_path)
    summary = preprocess(settings, settings.datasets[0], hospital.key)
    assert (summary.num_images, summary.num_exams, summary.texts_by_split.total()) == (8, 2, 2)
    assert summary.refused == {"for_processing": 1, "truncated": 1, "not_dicom": 1}
    assert summary.flagged == {}
    prepared = settings.prepared_folder(settings.datasets[0])
    for exam in read_exams([(name, prepared)]):
        assert set(exam.labels) == {"mass", "calcification"}
        assert exam.density in ("A", "B", "C", "D")
    (origin,) = {row["text_origin"] for row in pq.read_table(prepared / "exams.parquet").to_pylist()}
    assert origin == ("attributes" if name == "emory" else "report")


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed_patients_come_with_asymmetries_outcomes_and_a_teacher(name: str, tmp_path: Path) -> None:
    hospital = write_hospital(name, tmp_path / name, 1, hospitals=FOLLOWED, patients=3, workers=1, shape=SHAPE)
    settings = site_of(hospital, tmp_path)
    preprocess(settings, settings.datasets[0], hospital.key)
    exams = read_exams([(name, settings.prepared_folder(settings.datasets[0]))])
    seed = 1000 + list(HOSPITALS).index(name)
    drawn = [phantom_exam(seed, patient, FOLLOWED[name].population, shape=SHAPE) for patient in range(1000, 1003)]
    outcomes = [phantom_outcome(seed, exam) for exam in drawn]
    # Exams come in the order of their pseudonyms.
    assert Counter((exam.years_to_cancer, exam.years_followed) for exam in exams) == Counter(
        (one.years_to_cancer, one.years_followed) for one in outcomes
    )
    taught = sorted(phantom_teacher(seed, exam) for exam in drawn)
    np.testing.assert_allclose(sorted(exam.teacher or () for exam in exams), taught, atol=1e-6)
    assert sorted(exam.labels["asymmetry"] for exam in exams) == sorted(exam.has("asymmetry") for exam in drawn)
    assert all(exam.report is not None and "asymmetr" in exam.report.findings.lower() for exam in exams)
    assert None not in {exam.age_band for exam in exams}


def test_followed_patients_are_none_of_the_others(tmp_path: Path) -> None:
    first = small("emory", tmp_path / "a")
    other = write_hospital("emory", tmp_path / "b", 1, hospitals=FOLLOWED, patients=2, workers=1, shape=SHAPE)
    names = [{path.name for path in hospital.datasets[0].dicom.iterdir()} for hospital in (first, other)]
    assert names[0] & names[1] == {"strays"}
    assert first.key == other.key


def test_the_hospitals_differ_in_vendor_bits_photometry_and_transfer_syntax(tmp_path: Path) -> None:
    seen = []
    for name in HOSPITALS:
        image = next((small(name, tmp_path).datasets[0].dicom).glob("*-MRN-*/*/IM000001"))
        header = pydicom.dcmread(image)
        assert "phantom" in header.SeriesDescription
        assert str(header.PatientName)
        seen.append((header.Manufacturer, header.BitsStored, header.file_meta.TransferSyntaxUID))
        expected = phantom_exam(
            1000 + list(HOSPITALS).index(name), int(_patient_of(image)), HOSPITALS[name].population, shape=SHAPE
        ).images[Laterality.L, View.CC]
        stored = header.pixel_array.astype(float) / ((1 << header.BitsStored) - 1)
        inverted = 1 - stored if header.PhotometricInterpretation == "MONOCHROME1" else stored
        np.testing.assert_allclose(inverted, expected, atol=1 / (1 << header.BitsStored))
    assert all(len({row[column] for row in seen}) == 3 for column in range(3))


def _patient_of(image: Path) -> str:
    """The number of the patient, from the accession number in the path."""
    return str((int(image.parent.name[2:]) - 700000) // 37)


def test_equal_seeds_give_equal_exports_and_others_do_not(tmp_path: Path) -> None:
    first = small("mayo", tmp_path / "a")
    second = small("mayo", tmp_path / "b")
    other = small("mayo", tmp_path / "c", seed=2)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")
    assert first.key == second.key != other.key


def test_central_holds_the_real_mammograms_too(tmp_path: Path) -> None:
    hospital = small("central", tmp_path)
    assert [dataset.name for dataset in hospital.datasets] == ["central-screening", "cbis-ddsm"]
    assert len(list(hospital.datasets[1].dicom.iterdir())) == 8


def test_an_rle_frame_decodes_to_its_pixels() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 1 << 14, (40, 301)).astype(np.uint16)
    pixels[:, 200:] = 0
    pixels[5] = 77
    pixels[6, 1:] = 9
    frame = rle_frame(pixels)
    shape = Shape(40, 301, bits_allocated=16, bits_stored=14, signed=False)
    decoded = dicomsdl.open_memory(minimal_object(RLELossless, shape, frame)).pixelData(0, storedvalue=True)
    np.testing.assert_array_equal(decoded, pixels)
