"""The quality page of a small made-up data set whose refused files are real DICOM objects."""

import base64
import functools
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing

from dicom_fixtures import breast_pixels, prepare_or_die, write_mammogram
from mammofed_shared.data.columns import TABLES, check_rows, schema_of
from mammofed_shared.dicom.reasons import Kind, Reason
from mammofed_shared.errors import DataError
from mammofed_site.quality import sheets
from mammofed_site.quality.charts import in_bins, most_frequent
from mammofed_site.quality.counts import SIZE_BASE, Tally, count, tallied
from mammofed_site.quality.page import sample_refused, write_quality_page
from mammofed_site.quality.refused_picture import of_dicom
from mammofed_site.quality.sample import Sample
from mammofed_site.quality.thumbnails import MOST_BYTES, jpeg

VENDORS = ("hologic", "ge")
VIEWS = ("CC", "MLO")
CANARY = "CANARYSMITH"
"""Stands wherever an identifier could: in pseudonyms, paths, texts and headers."""


def image_row(prepared: Path, number: int) -> dict[str, Any]:
    """An accepted image: vendors and views in turn; every fifth was flipped by content."""
    path = Path("images") / f"{CANARY}-{number}.png"
    if not (prepared / path).exists():
        (prepared / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(prepared / path), (breast_pixels(190, 114, 255)).astype(np.uint8))
    return {
        "image": f"{CANARY}i{number}",
        "exam": f"{CANARY}e{number // 4}",
        "patient": f"{CANARY}p{number // 8}",
        "laterality": "LR"[number % 2],
        "laterality_from": "image",
        "view": VIEWS[number // 2 % 2],
        "view_from": "view_position",
        "path": str(path),
        "vendor": VENDORS[number % 10 == 0],
        "intent": "presentation",
        "window": "paper",
        "rows": 4096,
        "columns": 3328 if number % 3 else 2560,
        "crop_top": 0,
        "crop_left": 0,
        "crop_height": 10,
        "crop_width": 10,
        "flipped": False,
        "turned": False,
        "inverted": False,
        "flagged": "flipped_by_content;lossy" if number % 5 == 0 else "",
        "grey": [0, 0, 30, 10] + [0] * 12,
        "png_sha256": "",
        "file_number": number,
    }


def exam_row(number: int) -> dict[str, Any]:
    """An exam; every third has no text."""
    has_text = number % 3 > 0
    return {
        "exam": f"{CANARY}e{number}",
        "patient": f"{CANARY}p{number // 2}",
        "split": "train" if number % 4 else "test",
        "day": 7,
        "birads": (1, 2, None)[number % 3],
        "density": "ABCD"[number % 4],
        "findings": f"{CANARY} has a mass" if has_text else None,
        "text_origin": "report" if has_text else None,
        "num_words": 25 if has_text else 0,
        "scrubbed": "date;name" if number % 5 == 1 else "",
        "labels": "{}",
    }


def refused_row(number: int, reason: Reason) -> dict[str, Any]:
    return {
        "file_number": number,
        "reason": reason.value,
        "detail": reason.sentence,
        "is_error": reason.kind is Kind.ERROR,
    }


def write_tables(
    prepared: Path, images: list[dict[str, Any]], exams: list[dict[str, Any]], refused: list[dict[str, Any]]
) -> None:
    prepared.mkdir(parents=True, exist_ok=True)
    for name, rows in (("images", images), ("exams", exams), ("refused", refused)):
        batch = pa.RecordBatch.from_pylist(rows, schema=schema_of(TABLES[name]))
        check_rows(batch, TABLES[name])
        pq.write_table(pa.Table.from_batches([batch]), prepared / f"{name}.parquet")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """40 images of 10 exams of 5 patients, and 21 refused files of 4 kinds."""
    folder = tmp_path / "prepared"
    refused = [refused_row(100 + number, Reason.MULTI_FRAME) for number in range(12)]
    refused += [refused_row(200 + number, Reason.NOT_DICOM) for number in range(7)]
    refused += [refused_row(300, Reason.FOR_PROCESSING), refused_row(301, Reason.BURNED_IN_ANNOTATION)]
    write_tables(
        folder,
        [image_row(folder, number) for number in range(40)],
        [exam_row(number) for number in range(10)],
        refused,
    )
    return folder


def write_page(tmp_path: Path, prepared: Path, files: dict[int, Path] | None = None) -> str:
    out = tmp_path / "quality" / "screening.html"
    write_quality_page(out, site="mayo", dataset="screening", prepared=prepared, refused_files=files or {}, workers=1)
    return out.read_text(encoding="utf-8")


def plain(page: str) -> str:
    """The words of the page: no tags, no style, no pictures, white space as one blank."""
    without = re.sub(r"<(style|title).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", without)


def sizes(found: list[tuple[int, int]]) -> Tally:
    values = np.array([rows * SIZE_BASE + columns for rows, columns in found], np.int64)
    half = len(values) // 2
    return tallied(tallied(np.zeros((2, 0), np.int64), values[:half]), values[half:])


def picture(encoded: bytes | None) -> NDArray[np.uint8]:
    assert encoded is not None
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def test_the_page_says_how_much_came_in_and_what_was_refused_why(tmp_path: Path, prepared: Path) -> None:
    words = plain(write_page(tmp_path, prepared))
    assert "61 files 40 accepted, 65.6 % 21 refused, 34.4 % 5 patients 10 exams 6 exams with a text" in words
    assert f"multi_frame {Reason.MULTI_FRAME.sentence} 12 19.7 %" in words
    assert f"not_dicom {Reason.NOT_DICOM.sentence} 7 11.5 %" in words
    assert f"flipped_by_content {Reason.FLIPPED_BY_CONTENT.sentence} 8 20.0 %" in words
    assert words.index("Errors") < words.index("not_dicom") < words.index("Skips") < words.index("multi_frame")
    assert "preprocess --site mayo --dataset screening --locate N" in words


def test_the_counts_are_those_of_the_tables(prepared: Path) -> None:
    counts = count(prepared)
    assert counts.words["vendor"] == {"hologic": 36, "ge": 4}
    assert counts.words["view"] == {"CC": 20, "MLO": 20}
    assert counts.words["birads"] == {"1": 4, "2": 3, "not known": 3}
    assert counts.words["density"] == {"A": 3, "B": 3, "C": 2, "D": 2}
    assert counts.words["split"] == {"test": 3, "train": 7}
    assert counts.scrubbed == {"date": 2, "name": 2}
    np.testing.assert_array_equal(counts.sizes["ge"], sizes([(4096, 3328)] * 2 + [(4096, 2560)] * 2))
    np.testing.assert_allclose(counts.grey["ge"][:5], [0, 0, 3, 1, 0])
    assert counts.report_lengths[25] == counts.num_texts == 6


def test_accepted_images_are_drawn_over_all_vendors_and_views(tmp_path: Path, prepared: Path) -> None:
    part = plain(write_page(tmp_path, prepared).split('id="accepted"')[1].split('id="suspicious"')[0])
    assert part.count("file ") == 24
    assert re.findall("[LR] (?:CC|MLO) ge file [0-9]+", part) == [
        "L CC ge file 0",
        "L CC ge file 20",
        "L MLO ge file 10",
        "L MLO ge file 30",
    ]


def test_each_flag_and_each_reason_has_its_sheet(tmp_path: Path, prepared: Path) -> None:
    page = write_page(tmp_path, prepared)
    suspicious, refused = page.split('id="suspicious"')[1].split('id="refused"')
    assert plain(suspicious).count("file ") == 16  # 8 under each of two flags
    assert "multi_frame 12 files, 6 shown" in plain(refused)
    assert "for_processing 1 file Raw detector data" in plain(refused)
    assert refused.count("no picture") == 6 + 6 + 1 + 1
    numbers = [int(number) for number in re.findall(r">file (\d+)<", refused)]
    assert sorted(numbers) == sample_refused(prepared)


def test_a_refused_file_is_shown_where_it_can_be_decoded(tmp_path: Path, prepared: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no DICOM")
    files = {300: write_mammogram(tmp_path / "raw", breast_pixels(960, 640)), 200: garbage, 301: tmp_path / "gone"}
    refused = write_page(tmp_path, prepared, files).split('id="refused"')[1]
    assert refused.count("data:image/jpeg") == 1
    assert 'alt="for_processing, file 300"' in refused


def test_a_file_whose_worker_dies_has_a_grey_card(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kills the process over every file called deadly, and raises over every other one.
    monkeypatch.setattr(sheets, "of_dicom", functools.partial(prepare_or_die, None))
    files = {300: write_mammogram(tmp_path / "deadly"), 301: write_mammogram(tmp_path / "other")}
    refused = write_page(tmp_path, prepared, files).split('id="refused"')[1]
    assert refused.count("no picture") == 6 + 6 + 1 + 1


def test_several_frames_raw_pixels_and_colour_are_shown_as_grey(tmp_path: Path) -> None:
    bright = breast_pixels(960, 640)
    frames = np.stack([np.zeros_like(bright), bright, np.zeros_like(bright)])
    colour = np.repeat((bright >> 4).astype(np.uint8)[..., None], 3, axis=2)
    many = write_mammogram(tmp_path / "many", bright, NumberOfFrames=3, PixelData=frames.tobytes())
    raw = write_mammogram(
        tmp_path / "raw",
        (4095 - bright).astype(np.uint16),
        SOPClassUID=DigitalMammographyXRayImageStorageForProcessing,
        PresentationIntentType="FOR PROCESSING",
    )
    photo = write_mammogram(
        tmp_path / "photo",
        bright,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=colour.tobytes(),
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    )
    wanted = picture(of_dicom(write_mammogram(tmp_path / "plain", bright))).astype(int)
    assert wanted[40, 2] > 150
    assert wanted[40, -1] < 20
    for path in (many, raw, photo):
        np.testing.assert_allclose(picture(of_dicom(path)), wanted, atol=12)


@pytest.mark.parametrize("changes", [{"Rows": 65535, "Columns": 65535}, {"Rows": None}, {"PixelData": b"\0\0"}])
def test_a_header_that_lies_costs_the_picture_and_nothing_else(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert of_dicom(write_mammogram(tmp_path / "file", **changes)) is None


@pytest.mark.parametrize(("rows", "columns"), [(2400, 1800), (960, 640), (240, 160), (12, 12)])
def test_the_picture_of_a_refused_file_is_too_coarse_to_read(tmp_path: Path, rows: int, columns: int) -> None:
    shape = picture(of_dicom(write_mammogram(tmp_path / "file", breast_pixels(rows, columns)))).shape
    assert shape[0] <= 80
    assert shape[0] <= max(rows // 12, 1)


def test_no_identifier_path_or_date_is_in_the_page(tmp_path: Path, prepared: Path) -> None:
    path = write_mammogram(tmp_path / CANARY, PatientName=CANARY, PatientID=CANARY, SeriesDescription=CANARY)
    page = write_page(tmp_path, prepared, {300: path})
    assert CANARY not in page
    assert str(tmp_path) not in page
    assert not re.search(r"\b(19|20)\d\d[-/]?\d\d[-/]?\d\d\b", plain(page))


def test_the_page_needs_neither_network_nor_script(tmp_path: Path, prepared: Path) -> None:
    page = write_page(tmp_path, prepared)
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_equal_tables_give_equal_bytes(tmp_path: Path, prepared: Path) -> None:
    files = {300: write_mammogram(tmp_path / "raw")}
    assert write_page(tmp_path, prepared, files) == write_page(tmp_path, prepared, files)


def test_a_data_set_without_images_has_a_page(tmp_path: Path) -> None:
    write_tables(tmp_path / "prepared", [], [], [])
    words = plain(write_page(tmp_path, tmp_path / "prepared"))
    assert "0 files 0 accepted, 0.0 %" in words
    assert "No image was accepted" in words
    assert sample_refused(tmp_path / "prepared") == []


@pytest.mark.parametrize("is_there", [True, False])
def test_an_image_that_has_vanished_or_is_damaged_has_a_grey_card(
    tmp_path: Path, prepared: Path, is_there: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = prepared / "images" / f"{CANARY}-0.png"
    path.unlink()
    if is_there:
        path.write_bytes(b"damaged")
    part = write_page(tmp_path, prepared).split('id="accepted"')[1].split('id="suspicious"')[0]
    assert part.count("no picture") == 1
    assert CANARY not in "".join(capfd.readouterr())


def test_a_page_of_everything_at_its_grainiest_stays_below_3_megabytes(tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    flags = [reason for reason in Reason if reason.kind is Kind.FLAG]
    images = [image_row(folder, number) | {"flagged": ";".join(flags)} for number in range(200)]
    grain = np.random.default_rng(0).integers(0, 256, (400, 240)).astype(np.uint8)
    for row in images:
        cv2.imwrite(str(folder / row["path"]), grain)
    reasons = [reason for reason in Reason if reason.kind is not Kind.FLAG]
    refused = [refused_row(1000 + 10 * at + n, reason) for at, reason in enumerate(reasons) for n in range(6)]
    write_tables(folder, images, [exam_row(number) for number in range(50)], refused)
    noisy = write_mammogram(
        tmp_path / "noisy", np.random.default_rng(0).integers(0, 4096, (960, 960)).astype(np.uint16)
    )
    page = write_page(tmp_path, folder, {row["file_number"]: noisy for row in refused})
    assert page.count("data:image/jpeg") == 24 + 12 * len(flags) + 6 * len(reasons)
    assert len(page.encode()) < 3_000_000


def test_a_table_of_another_version_is_refused(tmp_path: Path, prepared: Path) -> None:
    table = pq.read_table(prepared / "images.parquet").drop_columns(["grey"])
    pq.write_table(table, prepared / "images.parquet")
    with pytest.raises(DataError, match="no column grey"):
        write_page(tmp_path, prepared)


def test_a_picture_of_pure_grain_fits_its_bytes() -> None:
    grain = np.random.default_rng(0).integers(0, 256, (160, 160)).astype(np.uint8)
    assert len(jpeg(grain, 160)) <= MOST_BYTES


def test_a_sample_does_not_depend_on_the_order_and_hardly_on_new_files() -> None:
    def drawn(*parts: range) -> list[int]:
        sample = Sample(6)
        for part in parts:
            sample.add("group", np.array(part, np.int64))
        return sample.of("group")

    assert drawn(range(100)) == drawn(range(50, 100), range(50))
    assert len(set(drawn(range(100))) & set(drawn(range(110)))) >= 4
    assert drawn(range(100)) != list(range(6))


def test_film_sizes_are_taken_together_and_detector_sizes_are_not() -> None:
    detectors = sizes([(4096, 3328)] * 5 + [(2294, 1914)] * 9)
    assert most_frequent(detectors) == [("2294 × 1914", 9), ("4096 × 3328", 5)]
    film = sizes([(4100 + number, 2600) for number in range(30)] + [(100, 100)] * 2)
    assert most_frequent(film) == [("4096–4607 × 2560–3071", 30), ("0–511 × 0–511", 2)]


def test_sizes_beyond_the_most_frequent_are_taken_together() -> None:
    found = sizes([(1000 * number, 10) for number in range(1, 9) for _ in range(number)])
    assert most_frequent(found) == [
        *((f"{1000 * number} × 10", number) for number in range(8, 2, -1)),
        ("other sizes", 3),
    ]


def test_the_last_bin_takes_all_that_is_longer() -> None:
    lengths = np.zeros(101, np.int64)
    lengths[[0, 9, 10, 100]] = 1
    assert in_bins(lengths, 10, 3) == [2, 1, 1]


def test_pictures_in_the_page_are_jpegs_of_at_most_160_pixels(tmp_path: Path, prepared: Path) -> None:
    page = write_page(tmp_path, prepared, {300: write_mammogram(tmp_path / "raw")})
    for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page):
        assert max(picture(base64.b64decode(data)).shape) <= 160
