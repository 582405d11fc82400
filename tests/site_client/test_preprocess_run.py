"""From a folder of DICOM files to a prepared data set, with real worker processes."""

import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from rich.console import Console

from dicom_fixtures import breast_pixels, mammogram_dataset, prepare_or_die, write_exam, write_mammogram
from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.data.prepared import read_counts, read_preprocessing
from mammofed_shared.dicom.profiles import load_profile
from mammofed_shared.errors import DataError, StateError
from mammofed_shared.exam import Laterality, Split, View
from mammofed_site import preprocess as intake
from mammofed_site.intake_journal import Journal
from mammofed_site.intake_summary import Summary
from mammofed_site.preprocess import Recipe, preprocess
from mammofed_site.preprocess_command import locate_file, make_quality_page, preprocess_with_progress
from mammofed_site.pseudonym_key import load_or_create_key

KEY = b"k" * 32


def site(folder: Path, **changes: Any) -> tuple[SiteSettings, DatasetSettings]:
    dataset = {"name": "screening", "dicom": folder / "pacs"} | changes.pop("dataset", {})
    settings = SiteSettings.model_validate(
        {
            "site": "mayo",
            "consortium": "test",
            "server": "localhost:1",
            "folder": folder / "site",
            "identity": folder / "identity",
            "text_encoder": folder / "text",
            "datasets": [dataset],
            "preprocessing": {"height": 96, "width": 64},
            "worker": {"preprocess_workers": 1},
        }
        | changes
    )
    return settings, settings.datasets[0]


def content(prepared: Path) -> dict[str, bytes]:
    """All that a reader of the prepared folder may see."""
    return {
        str(path.relative_to(prepared)): path.read_bytes()
        for path in sorted(prepared.rglob("*"))
        if path.is_file() and path.name not in ("journal.sqlite", ".lock")
    }


def run(folder: Path, **changes: Any) -> tuple[Summary, Path]:
    settings, dataset = site(folder, **changes)
    return preprocess(settings, dataset, KEY), settings.prepared_folder(dataset)


def test_exams_come_out_with_views_texts_labels_and_days(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1", "20200110")
    write_exam(tmp_path / "pacs", "P1", "20210110")
    write_exam(tmp_path / "pacs", "P2")
    (tmp_path / "reports.csv").write_text('accession,report\nACC-P1-20200110,"FINDINGS: A. IMPRESSION: B."\n')
    (tmp_path / "attributes.csv").write_text("accession,finding,value,laterality\nACC-P2-20200110,mass,positive,left\n")
    (tmp_path / "labels.csv").write_text("accession,mass,density\nACC-P2-20200110,1,C\n")
    tables = {name: tmp_path / f"{name}.csv" for name in ("reports", "attributes", "labels")}
    summary, prepared = run(tmp_path, dataset=tables)
    assert (summary.num_images, summary.num_exams, summary.num_patients, summary.texts_by_split.total()) == (
        12,
        3,
        2,
        2,
    )
    exams = read_exams([("screening", prepared)], read_preprocessing(prepared).digest)
    with_text = [exam.split for exam in exams if exam.report is not None]
    assert read_counts(prepared) == {split: with_text.count(split) for split in Split}
    assert all(
        {(image.laterality, image.view) for image in exam.images} == {(a, b) for a in Laterality for b in View}
        for exam in exams
    )
    rows = pq.read_table(prepared / "exams.parquet").to_pylist()
    assert sorted(row["day"] for row in rows) == [0, 0, 366]
    by_origin = {row["text_origin"]: row for row in rows}
    assert (by_origin["report"]["findings"], by_origin["report"]["impression"]) == ("A.", "B.")
    assert "mass" in by_origin["attributes"]["findings"]
    assert (by_origin["attributes"]["labels"], by_origin["attributes"]["density"]) == ('{"mass": 1}', "C")
    assert by_origin[None]["findings"] is None


def test_a_second_run_decodes_nothing_and_changes_nothing(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1")
    first, prepared = run(tmp_path)
    before = content(prepared)
    second, _ = run(tmp_path)
    assert (first.num_decoded, second.num_decoded) == (4, 0)
    assert content(prepared) == before


def test_only_new_and_changed_files_are_decoded_and_vanished_ones_leave(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1")
    write_exam(tmp_path / "pacs", "P2")
    run(tmp_path)
    (tmp_path / "pacs/P1/P1-20200110-LCC.dcm").unlink()
    write_exam(tmp_path / "pacs", "P0")
    os.utime(tmp_path / "pacs/P2/P2-20200110-LCC.dcm", (1, 1))
    summary, prepared = run(tmp_path)
    assert (summary.num_decoded, summary.num_images) == (5, 11)
    rows = pq.read_table(prepared / "images.parquet").to_pylist()
    assert sorted(row["file_number"] for row in rows) == [2, 3, 4, *range(5, 13)]
    assert {str(path.relative_to(prepared)) for path in prepared.rglob("*.png")} == {row["path"] for row in rows}


def test_other_settings_make_all_images_anew(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1")
    run(tmp_path)
    summary, prepared = run(tmp_path, preprocessing={"height": 64, "width": 48})
    assert summary.num_decoded == 4
    assert read_preprocessing(prepared).height == 64


def test_a_run_that_was_killed_ends_in_the_same_files(tmp_path: Path) -> None:
    for patient in range(12):
        write_exam(tmp_path / "pacs", f"P{patient}")
    settings, dataset = site(tmp_path)
    prepared = settings.prepared_folder(dataset)
    process = multiprocessing.get_context("spawn").Process(target=preprocess, args=(settings, dataset, KEY))
    process.start()
    deadline = time.monotonic() + 60
    while _num_recorded(prepared) < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (prepared / "preprocessing.json").exists()
    resumed, _ = run(tmp_path)
    assert 0 < resumed.num_decoded < 48
    _, whole = run(tmp_path, dataset={"prepared": tmp_path / "other"})
    assert content(prepared) == content(whole)


def _num_recorded(prepared: Path) -> int:
    if not (prepared / "journal.sqlite").exists():
        return 0
    with closing(sqlite3.connect(prepared / "journal.sqlite")) as base:
        try:
            return int(base.execute("SELECT count(*) FROM file WHERE item IS NOT NULL").fetchone()[0])
        except sqlite3.OperationalError:  # it has no tables yet
            return 0


def test_a_file_that_kills_its_worker_is_refused_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_exam(tmp_path / "pacs", "P1")
    write_mammogram(tmp_path / "pacs/deadly.dcm", PatientID="P9")
    monkeypatch.setattr(intake, "prepare_file", prepare_or_die)
    summary, prepared = run(tmp_path)
    assert (summary.num_images, summary.refused) == (4, {"decoder_died": 1})
    (row,) = pq.read_table(prepared / "refused.parquet").to_pylist()
    assert (row["is_error"], row["reason"]) == (True, "decoder_died")
    monkeypatch.undo()
    again, _ = run(tmp_path)
    assert (again.num_decoded, again.num_images, again.refused) == (1, 5, {})


def test_duplicates_are_taken_once_and_contradicting_ones_not_at_all(tmp_path: Path) -> None:
    pacs, other = tmp_path / "pacs", np.maximum(breast_pixels(), 5)
    write_mammogram(pacs / "a")
    write_mammogram(pacs / "b")  # the same instance again
    write_mammogram(pacs / "c", SOPInstanceUID="1.9")  # the same pixels under another instance
    write_mammogram(pacs / "d", PatientID="P2", SOPInstanceUID="1.10", StudyInstanceUID="1.11")
    write_mammogram(pacs / "e", other[:100], PatientID="P2", SOPInstanceUID="1.10", StudyInstanceUID="1.11")
    write_mammogram(pacs / "f", other[:110], PatientID="P3", SOPInstanceUID="1.12", StudyInstanceUID="1.13")
    write_mammogram(pacs / "g", other[:105], PatientID="P4", SOPInstanceUID="1.14", StudyInstanceUID="1.13")
    summary, prepared = run(tmp_path)
    assert [row["file_number"] for row in pq.read_table(prepared / "images.parquet").to_pylist()] == [1]
    refused = {row["file_number"]: row["reason"] for row in pq.read_table(prepared / "refused.parquet").to_pylist()}
    assert refused == {
        2: "duplicate",
        3: "duplicate",
        4: "duplicate_conflict",
        5: "duplicate_conflict",
        6: "contradicting_tags",
        7: "contradicting_tags",
    }
    assert summary.num_images == len(list(prepared.rglob("*.png"))) == 1


def test_an_unchanged_duplicate_is_not_decoded_again(tmp_path: Path) -> None:
    write_mammogram(tmp_path / "pacs/a")
    write_mammogram(tmp_path / "pacs/b", SOPInstanceUID="1.9")
    first, prepared = run(tmp_path)
    assert (first.num_decoded, first.refused) == (2, {"duplicate": 1})
    assert len(list(prepared.rglob("*.png"))) == 1
    again, _ = run(tmp_path)
    assert (again.num_decoded, again.refused) == (0, {"duplicate": 1})
    (tmp_path / "pacs/a").unlink()
    alone, _ = run(tmp_path)
    assert (alone.num_decoded, alone.num_images) == (1, 1)  # b counts now, and its image is made


def test_pixels_under_two_patients_are_flagged_and_not_tested_on(tmp_path: Path) -> None:
    for patient in range(6):
        write_exam(tmp_path / "pacs", f"P{patient}")
        write_mammogram(
            tmp_path / f"pacs/same{patient}",
            PatientID=f"P{patient}",
            StudyInstanceUID=f"1.7.{patient}",
            SOPInstanceUID=f"1.8.{patient}",
        )
    summary, prepared = run(tmp_path, split={"train": 0.5, "validation": 0.0, "test": 0.5})
    assert (summary.num_images, summary.flagged) == (30, {"shared_pixels": 6})
    exams = read_exams([("screening", prepared)])
    singles = {exam.split for exam in exams if len(exam.images) == 1}
    assert {exam.split for exam in exams} == {Split.TRAIN, Split.TEST}
    assert singles == {Split.TRAIN}


def test_exams_are_chosen_by_what_is_known_of_them(tmp_path: Path) -> None:
    for patient in ("P1", "P2", "P3", "P4"):
        write_exam(tmp_path / "pacs", patient)
    write_exam(tmp_path / "pacs", "P5", StudyDescription="MG DIAGNOSTIC BILATERAL")
    (tmp_path / "pacs/P4/P4-20200110-LCC.dcm").unlink()
    reports = tmp_path / "reports.csv"
    reports.write_text(
        'accession,report\nACC-P1-20200110,"FINDINGS: A. IMPRESSION: BI-RADS 2."\n'
        'ACC-P2-20200110,"FINDINGS: A. IMPRESSION: BI-RADS category 4."\n'
    )
    summary, prepared = run(tmp_path, dataset={"reports": reports, "choose": {"exams": "complete"}})
    assert (summary.num_exams, summary.num_images) == (2, 8)
    assert summary.refused == {"birads_outside": 4, "diagnostic_exam": 4, "incomplete_exam": 3}
    assert {row["birads"] for row in pq.read_table(prepared / "exams.parquet").to_pylist()} == {2, None}
    everything = {"reports": reports, "choose": {"birads": [0, 1, 2, 3, 4, 5], "kind": "any"}}
    summary, _ = run(tmp_path, dataset=everything)
    assert (summary.num_exams, summary.refused) == (5, {})


def test_a_table_that_names_another_patient_for_an_exam_is_not_believed(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1")
    write_exam(tmp_path / "pacs", "P2")
    reports = tmp_path / "reports.csv"
    reports.write_text(
        "accession,patient_id,findings,impression\n"
        "ACC-P1-20200110,P1,No masses.,Negative.\nACC-P2-20200110,P1,No masses.,Negative.\n"
    )
    summary, _ = run(tmp_path, dataset={"reports": reports})
    assert (summary.num_exams, summary.texts_by_split.total(), summary.num_of_another) == (2, 1, 1)


def test_a_dry_run_says_what_would_happen_and_writes_nothing(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1")
    write_mammogram(tmp_path / "pacs/other", Modality="US")
    settings, dataset = site(tmp_path)
    dry = preprocess(settings, dataset, KEY, is_dry=True)
    assert (dry.num_decoded, dry.num_images, dry.refused) == (5, 4, {"not_mg": 1})
    assert not (tmp_path / "site").exists()
    real = preprocess(settings, dataset, KEY)
    before = content(settings.prepared_folder(dataset))
    write_exam(tmp_path / "pacs", "P2")
    dry = preprocess(settings, dataset, KEY, is_dry=True)
    assert (dry.num_decoded, dry.num_images, dry.num_patients) == (4, 8, 2)
    assert (real.num_images, content(settings.prepared_folder(dataset))) == (4, before)


def test_a_file_is_located_by_its_number_at_the_site_only(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1")
    _, prepared = run(tmp_path)
    settings, _ = site(tmp_path)
    for row in pq.read_table(prepared / "images.parquet").to_pylist():
        ((name, path),) = locate_file(settings, KEY, row["file_number"], None)
        assert (name, path.name) == ("screening", f"P1-20200110-{row['laterality']}{row['view']}.dcm")
    with pytest.raises(DataError, match="no file has number 99"):
        locate_file(settings, KEY, 99, None)


def test_a_patients_own_name_is_struck_out_of_her_report(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1", PatientName="Müllerova^Zdenka")
    write_exam(tmp_path / "pacs", "P2", PatientName="Small^Anna")
    reports = tmp_path / "reports.csv"
    reports.write_text(
        'accession,report\nACC-P1-20200110,"FINDINGS: Zdenka MULLEROVA has no masses. IMPRESSION: Negative."\n'
        'ACC-P2-20200110,"FINDINGS: There is a small mass. IMPRESSION: Benign."\n'
    )
    summary, prepared = run(tmp_path, dataset={"reports": reports})
    rows = {row["scrubbed"]: row for row in pq.read_table(prepared / "exams.parquet").to_pylist()}
    assert summary.scrubbed == {"name": 1}
    assert rows["name"]["findings"] == "[name] has no masses."
    assert rows[""]["findings"] == "There is a small mass."
    summary, prepared = run(tmp_path, dataset={"reports": reports, "reports_with_identifiers": "drop"})
    assert summary.texts_by_split.total() == 1
    summary, prepared = run(tmp_path, dataset={"reports": reports, "reports_with_identifiers": "keep"})
    assert summary.scrubbed == {"name": 1}
    findings = {row["findings"] for row in pq.read_table(prepared / "exams.parquet").to_pylist()}
    assert "Zdenka MULLEROVA has no masses." in findings


def test_no_name_number_or_date_reaches_an_output_or_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    planted = {
        "PatientName": "CANARYNAME^Janecanary",
        "PatientID": "CANARYMRN77",
        "AccessionNumber": "CANARYACC",
        "StudyDate": "19870623",
        "Manufacturer": "CANARYVENDOR",
        "SeriesDescription": "CANARYSERIES",
        "StudyInstanceUID": "1.2.88888888",
        "SOPInstanceUID": "1.2.99999999",
        "ReferringPhysicianName": "CANARYDOC^Max",
        "PatientAge": "058Y",
        "PatientBirthDate": "19290419",
    }
    pacs = tmp_path / "pacs"
    write_mammogram(pacs / "CANARYFILE" / "CANARYFILE1", **planted)
    private = mammogram_dataset(**(planted | {"SOPInstanceUID": "1.2.77777777"}))
    private.private_block(0x0011, "CANARYBLOCK", create=True).add_new(1, "LO", "CANARYPRIVATE")
    private.save_as(pacs / "CANARYFILE6", enforce_file_format=True)
    write_mammogram(pacs / "CANARYFILE2", **(planted | {"ViewPosition": "CANARYVIEW"}))
    write_mammogram(pacs / "CANARYFILE3", **(planted | {"Rows": 7, "ImageComments": "CANARYTEXT"}))
    write_mammogram(pacs / "CANARYFILE4", **planted)
    broken = (pacs / "CANARYFILE4").read_bytes().replace(b"MONOCHROME2", b"CANARYGREY2")
    (pacs / "CANARYFILE4").write_bytes(broken)
    (pacs / "CANARYFILE5").write_text("CANARYNAME")
    reports = tmp_path / "reports.csv"
    reports.write_text(
        'accession,report\nCANARYACC,"NAME: CANARYNAME\nFINDINGS: No masses in CanaryName. '
        'Seen by CANARYDOC on 06/23/1987, MRN CANARYMRN77, call (555) 123-4567."\n'
    )
    settings, dataset = site(tmp_path, dataset={"reports": reports})
    console = Console(record=True, force_terminal=True)
    summary = preprocess_with_progress(settings, dataset, KEY, console)
    assert (summary.num_images, sum(summary.refused.values()), summary.texts_by_split.total()) == (1, 5, 1)
    make_quality_page(settings, dataset, KEY)
    outputs = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert len(outputs) >= 6
    texts = [path.read_bytes() for path in outputs] + [str(path).encode() for path in outputs]
    texts += [console.export_text().encode(), caplog.text.encode(), repr(summary).encode()]
    texts += [json.dumps(pq.read_table(path).to_pylist()).encode() for path in outputs if path.suffix == ".parquet"]
    texts += [stream.encode() for stream in capsys.readouterr()]
    for text in texts:
        for canary in (
            b"CANARY",
            b"anary",
            b"19870623",
            b"1987-06-23",
            b"06/23/1987",
            b"123-4567",
            b"88888888",
            b"99999999",
            b"058Y",
            b"19290419",
            b"1929-04-19",
            KEY,
        ):
            assert canary not in text


def test_of_the_age_a_band_is_kept_where_the_images_of_an_exam_agree(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1", PatientAge="058Y")
    write_exam(tmp_path / "pacs", "P2", PatientAge="058Y")
    write_exam(tmp_path / "pacs", "P3")
    one_view = next((tmp_path / "pacs" / "P2").iterdir())
    dataset = pydicom.dcmread(one_view)
    dataset.PatientAge = "061Y"
    dataset.save_as(one_view)

    _, prepared = run(tmp_path)

    bands = [exam.age_band for exam in read_exams([("screening", prepared)])]
    assert sorted(bands, key=str) == ["50-59", None, None]


def test_a_patient_keeps_the_split_whatever_else_is_there(tmp_path: Path) -> None:
    halves = {"split": {"train": 0.5, "validation": 0.2, "test": 0.3}}
    for patient in range(8):
        write_exam(tmp_path / "pacs", f"P{patient}")
    _, prepared = run(tmp_path, **halves)
    before = {exam.patient: exam.split for exam in read_exams([("screening", prepared)])}
    assert len(set(before.values())) > 1
    write_exam(tmp_path / "pacs", "A0")
    write_exam(tmp_path / "pacs", "P3", "20230101")
    _, prepared = run(tmp_path, **halves)
    after = [(exam.patient, exam.split) for exam in read_exams([("screening", prepared)])]
    assert len(after) == 10
    assert {patient: split for patient, split in after if patient in before} == before
    assert len(set(after)) == 9


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    write_exam(tmp_path / "pacs", "P1")
    settings, dataset = site(tmp_path)
    recipe = Recipe(settings.preprocessing, load_profile("standard"), KEY, settings.prepared_folder(dataset))
    with Journal(recipe), pytest.raises(StateError, match="wait for it"):
        preprocess(settings, dataset, KEY)


def test_a_data_set_without_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`dicom` must name"):
        run(tmp_path)


def test_the_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path)
    path = tmp_path / "pseudonym.key"
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_key(tmp_path) == key
    path.chmod(0o640)
    with pytest.raises(DataError, match="chmod 600"):
        load_or_create_key(tmp_path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(DataError, match="5 bytes"):
        load_or_create_key(tmp_path)


@pytest.mark.parametrize("nth", range(3))
def test_a_run_cut_while_its_tables_are_put_in_place_ends_in_the_same_files(
    nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_exam(tmp_path / "pacs", "P1")
    write_mammogram(tmp_path / "pacs/other", Modality="US")
    run(tmp_path)
    write_exam(tmp_path / "pacs", "P2")
    replace, done = Path.replace, []

    def cut(self: Path, target: Path) -> Path:
        if self.name.endswith(".parquet.writing"):
            if len(done) == nth:
                raise KeyboardInterrupt
            done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.undo()
    settings, dataset = site(tmp_path)
    with pytest.raises(DataError, match="not prepared"):
        read_exams([("screening", settings.prepared_folder(dataset))])
    resumed, prepared = run(tmp_path)
    assert (resumed.num_decoded, resumed.num_images) == (0, 8)
    _, whole = run(tmp_path, dataset={"prepared": tmp_path / "other"})
    assert content(prepared) == content(whole)
