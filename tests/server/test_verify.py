"""`fl-server verify`: whatever is changed in a run's folder is seen and placed; what is whole is called whole."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation import small_state
from identities import Consortium, make_consortium
from mammofed_server import cli
from mammofed_server.entries import CERTIFICATES
from mammofed_server.ledger import RunLedger
from mammofed_server.provenance import contributors_text, copy_provenance
from mammofed_server.verify import Report, verify_run
from mammofed_shared.canonical import canonical
from mammofed_shared.errors import StateError
from mammofed_shared.ledger import FILE, Ledger, line_digest
from runs import begin_small_run
from signed_runs import SignedRun, make_signed_run

PLACES = 6
"""Places in each kind of file at which a byte is changed."""


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["central", "mayo"])


@pytest.fixture(scope="module")
def alternating(tmp_path_factory: pytest.TempPathFactory, consortium: Consortium) -> SignedRun:
    folder = tmp_path_factory.mktemp("alternating")
    return make_signed_run(folder, consortium, schedule={"kind": "alternating", "rounds": 2})


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory, consortium: Consortium) -> SignedRun:
    """FedAdam over clipped updates, which are kept."""
    strategy = {"name": "fedadam", "clip_norm": 2.0, "server_learning_rate": 0.1}
    return make_signed_run(
        tmp_path_factory.mktemp("folded"),
        consortium,
        schedule={"kind": "fedavg", "rounds": 2, "strategy": strategy},
        checkpoints={"keep_updates": True},
    )


@pytest.fixture
def run(tmp_path: Path, alternating: SignedRun) -> SignedRun:
    return alternating.copy(tmp_path)


def _findings(report: Report, severity: str = "tampered") -> list[str]:
    return [f"{item.where}: {item.what}" for item in report.findings if item.severity == severity]


# ── what is whole ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_nobody_touched_is_whole_and_names_its_contributors(
    alternating: SignedRun, consortium: Consortium
) -> None:
    ledgers = [folder / FILE for folder in alternating.sites.values()]
    report = verify_run(alternating.folder, consortium.root_fingerprint, ledgers)
    assert (report.verdict, report.findings) == ("whole", [])
    assert (report.turn, report.ending) == (4, "finished")
    assert report.state == alternating.run.manifest(4).state.digest
    assert report.num_signed_lines == report.num_lines == len(Ledger(alternating.folder / FILE).lines)
    assert (report.num_statements, report.num_unsigned) == (16, 0), "2 answers, 4 visits, 10 evaluations"
    told = [(item.site, item.num_visits, item.num_signed, item.num_exams) for item in report.contributors]
    assert told == [("central", 2, 2, 13), ("mayo", 2, 2, 14)]
    assert report.contributors[0].data == ["d" * 64]


def test_every_strategys_state_is_computed_again_from_its_updates(folded: SignedRun) -> None:
    report = verify_run(folded.folder)
    assert (report.verdict, report.findings) == ("whole", [])
    assert report.num_means == 2


def test_a_simulation_is_called_unsigned(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    run.ledger = RunLedger(run)
    run.end("cancelled")
    report = verify_run(tmp_path)
    assert (report.verdict, report.root, report.num_signed_lines) == ("whole", "", 0)
    said = CliRunner().invoke(cli.app, ["verify", str(tmp_path)])
    assert said.exit_code == 0 and "UNSIGNED: nobody had a key" in said.output
    report = verify_run(tmp_path, "sha256:" + "0" * 64)
    assert "nothing is signed" in _findings(report)[0], "a root was asked for"


# ── one changed byte ────────────────────────────────────────────────────────────────────────────────────────────

SEALED = [
    "run.json",
    "quality.json",
    "members.json",
    "ended.json",
    "evaluations/00001.json",
    "checkpoints/00000/state.safetensors",
    "checkpoints/00001/manifest.json",
    "checkpoints/00001/seals.json",
    "checkpoints/00002/state.safetensors",
]


@pytest.mark.parametrize("name", SEALED)
def test_one_changed_byte_of_a_sealed_file_is_told_to_the_byte(run: SignedRun, name: str) -> None:
    _flip_and_look(run, name)


@pytest.mark.parametrize(
    "name", ["state.safetensors", "second-moments.safetensors", "updates/mayo.safetensors", "manifest.json"]
)
def test_one_changed_byte_of_a_folded_checkpoint_is_told_to_the_byte(
    tmp_path: Path, folded: SignedRun, name: str
) -> None:
    _flip_and_look(folded.copy(tmp_path), f"checkpoints/00002/{name}")


def _flip_and_look(run: SignedRun, name: str) -> None:
    path = run.folder / name
    raw = path.read_bytes()
    draw = random.Random(name)
    for place in [0, len(raw) - 1, *(draw.randrange(len(raw)) for _ in range(PLACES))]:
        changed = bytearray(raw)
        changed[place] ^= draw.randrange(1, 256)
        path.unlink()  # a hard link of it may be another file of the run
        path.write_bytes(changed)
        report = verify_run(run.folder)
        wanted = f"{name}: byte {place}: expected 0x{raw[place]:02x}, found 0x{changed[place]:02x}"
        assert report.verdict == "tampered"
        assert any(item.startswith(wanted) for item in _findings(report)), _findings(report)
    path.write_bytes(raw)
    assert verify_run(run.folder).verdict == "whole"


def test_every_file_of_evidence_is_among_those_that_are_flipped_here(alternating: SignedRun, folded: SignedRun) -> None:
    kinds = {Path(name).name if "/" in name else name for name in SEALED}
    kinds |= {"00001.json", "first-moments.safetensors", "second-moments.safetensors", FILE, "root.pem"}
    aside = {"control", "lock", "first.safetensors"}
    for made in (alternating, folded):
        for path in made.folder.rglob("*"):
            is_certificate = path.parent.name == CERTIFICATES
            is_evidence = path.is_file() and not is_certificate and path.parent.name not in ("evaluations", "updates")
            assert not is_evidence or path.name in kinds | aside, path


def test_a_changed_byte_of_a_state_is_told_with_its_tensor(run: SignedRun) -> None:
    path = run.folder / "checkpoints/00003/state.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # of the counter, 8 bytes that may lie first or last
    path.write_bytes(raw)
    (finding,) = [item for item in _findings(verify_run(run.folder)) if "tensor" in item]
    assert finding.split("tensor ")[1].rstrip(")") in ("layer.weight", "norm.running_mean", "norm.num_batches_tracked")


def test_a_changed_byte_of_a_manifest_is_told_with_its_line_and_field(run: SignedRun) -> None:
    path = run.folder / "checkpoints/00003/manifest.json"
    raw = path.read_bytes()
    place = raw.index(b'"num_exams": 13.0') + len(b'"num_exams": 1')
    path.write_bytes(raw[:place] + b"9" + raw[place + 1 :])
    line = raw.count(b"\n", 0, place) + 1
    told = _findings(verify_run(run.folder))
    assert any(f"(line {line}, field contributions.0.metrics.num_exams)" in item for item in told), told


def test_fields_are_told_of_a_manifest_that_was_written_anew(run: SignedRun) -> None:
    path = run.folder / "checkpoints/00003/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["contributions"][0]["metrics"]["num_exams"] = 13000.0
    path.write_text(json.dumps(manifest, indent=1))
    told = _findings(verify_run(run.folder))
    assert any("it says another contributions.0.num_exams than the ledger" in item for item in told), told


def test_each_changed_byte_of_the_ledger_is_told_by_its_line(run: SignedRun) -> None:
    path = run.folder / FILE
    raw = path.read_bytes()
    draw = random.Random(1)
    exact = 0
    for place in (draw.randrange(len(raw)) for _ in range(60)):
        changed = bytearray(raw)
        changed[place] ^= draw.randrange(1, 256)
        path.write_bytes(changed)
        line, begin = raw.count(b"\n", 0, place) + 1, raw.rfind(b"\n", 0, place) + 1
        report = verify_run(run.folder)
        told = [item for item in _findings(report) if item.startswith(f"{FILE}, line {line}")]
        assert report.verdict == "tampered" and told, (place, _findings(report))
        exact += f"byte {place - begin + 1} of the line, field" in told[0]
    assert exact > 40, "to the byte, but for bytes of the signature, which nothing can tell"


def test_a_line_that_names_another_certificate_than_signed_it_is_tampered_and_not_incomplete(run: SignedRun) -> None:
    """The name is beside what is signed: nothing but the certificates themselves can tell."""
    path = run.folder / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    by = json.loads(lines[-1])["signature"]["by"]
    lines[-1] = lines[-1].replace(by.encode(), (("0" if by[0] != "0" else "1") + by[1:]).encode())
    path.write_bytes(b"".join(lines))
    report = verify_run(run.folder)
    assert report.verdict == "tampered"
    (told,) = _findings(report)
    assert told.startswith(f"{FILE}, line {len(lines)}") and f"and {by} has signed" in told


def test_a_changed_byte_of_a_certificate_is_told_by_its_file(run: SignedRun) -> None:
    draw = random.Random(1)
    for path in sorted((run.folder / CERTIFICATES).iterdir()):
        raw = path.read_bytes()
        for place in [0, len(raw) - 1, *(draw.randrange(len(raw)) for _ in range(4))]:
            changed = bytearray(raw)
            changed[place] ^= draw.randrange(1, 256)
            path.write_bytes(changed)
            told = _findings(verify_run(run.folder))
            assert any(item.startswith(f"{CERTIFICATES}/{path.name}") for item in told), (path.name, place, told)
        path.write_bytes(raw)


# ── what is made to fit ─────────────────────────────────────────────────────────────────────────────────────────


def _rewrite(run: SignedRun, change: Callable[[list[dict[str, object]]], None]) -> None:
    """Change lines and make all digests fit again, as somebody can who has no key."""
    lines = [json.loads(line) for line in (run.folder / FILE).read_text().splitlines()]
    change(lines)
    previous = None
    for number, line in enumerate(lines, start=1):
        line |= {"number": number, "previous": previous}
        previous = line["digest"] = line_digest(number, previous, line["entry"])
    (run.folder / FILE).write_bytes(b"".join(canonical(line) + b"\n" for line in lines))


def _line_of_turn(lines: list[dict[str, object]], turn: int) -> dict[str, object]:
    return next(line for line in lines if line["entry"].get("turn") == turn and line["entry"]["kind"] == "turn")  # type: ignore[attr-defined,index]


def test_a_ledger_that_was_made_to_fit_is_not_signed(run: SignedRun) -> None:
    def more_exams(lines: list[dict[str, object]]) -> None:
        _line_of_turn(lines, 2)["entry"]["contributions"][0]["num_exams"] = 5000  # type: ignore[index]

    _rewrite(run, more_exams)
    told = _findings(verify_run(run.folder))
    assert any("not the coordinator's signature of this line" in item for item in told)


def test_a_contribution_that_was_taken_out_is_missed(run: SignedRun) -> None:
    def without_mayo(lines: list[dict[str, object]]) -> None:
        lines.remove(_line_of_turn(lines, 2))

    _rewrite(run, without_mayo)
    told = _findings(verify_run(run.folder))
    assert any("turn 3 stands where turn 2 is expected" in item for item in told)
    assert any("field before: turn 3 starts from another state" in item for item in told)
    assert any("another ledger_head than the ledger" in item for item in told), "the sites have signed the old lines"


def test_a_statement_under_another_sites_name_does_not_hold(run: SignedRun) -> None:
    def as_mayo(lines: list[dict[str, object]]) -> None:
        _line_of_turn(lines, 1)["entry"]["contributions"][0]["site"] = "mayo"  # type: ignore[index]

    _rewrite(run, as_mayo)
    told = _findings(verify_run(run.folder))
    assert any("expected spiffe://hospitals/site/mayo" in item for item in told), told


def test_a_ledger_whose_signatures_were_taken_away_is_no_simulation(run: SignedRun) -> None:
    def unsigned(lines: list[dict[str, object]]) -> None:
        for line in lines:
            line["signature"] = None

    _rewrite(run, unsigned)
    told = _findings(verify_run(run.folder))
    assert sum("the line is not signed" in item for item in told) == len(Ledger(run.folder / FILE).lines)


def test_the_consortium_of_somebody_else_is_seen_by_its_root(
    tmp_path: Path, alternating: SignedRun, consortium: Consortium
) -> None:
    other = make_consortium(tmp_path / "other", ["central", "mayo"])
    forged = make_signed_run(tmp_path / "forged", other, schedule={"kind": "alternating", "rounds": 1})
    assert verify_run(forged.folder).verdict == "whole", "by itself"
    told = _findings(verify_run(forged.folder, consortium.root_fingerprint))
    assert told == [f"{FILE}: the signatures lead to the root {other.root_fingerprint}, asked for was "
                    f"{consortium.root_fingerprint}"]  # fmt: skip


def test_lines_of_a_strange_form_end_in_words_and_nothing_outside_is_read(run: SignedRun) -> None:
    def strange(lines: list[dict[str, object]]) -> None:
        lines[-1]["entry"] = {"kind": "turn", "turn": "x"}
        lines[1]["entry"]["files"] = {"../../secret": lines[0]["entry"]["files"]["run.json"]}  # type: ignore[index]

    _rewrite(run, strange)
    told = _findings(verify_run(run.folder))
    assert any("outside of the run's folder" in item for item in told)


def test_a_mean_that_its_updates_do_not_give_is_seen(tmp_path: Path, folded: SignedRun) -> None:
    run = folded.copy(tmp_path)
    kept = run.folder / "checkpoints/00001/updates/mayo.safetensors"
    kept.unlink()
    small_state(kept, 77.0)
    told = _findings(verify_run(run.folder))
    assert any(item.startswith("checkpoints/00001: its updates give another state.safetensors") for item in told), told


# ── what is missing ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("checkpoints/00001/state.safetensors", "whole"),
        ("checkpoints/00004/state.safetensors", "incomplete"),
        ("checkpoints/00002/manifest.json", "incomplete"),
        ("evaluations/00002.json", "incomplete"),
        (f"{CERTIFICATES}/root.pem", "incomplete"),
        (FILE, "incomplete"),
    ],
)
def test_what_is_not_there_any_more_is_told(run: SignedRun, name: str, verdict: str) -> None:
    (run.folder / name).unlink()
    report = verify_run(run.folder)
    assert report.verdict == verdict, report.findings
    assert report.num_states_gone == (1 if verdict == "whole" else 0)


def test_a_ledger_behind_its_run_is_incomplete(run: SignedRun) -> None:
    lines = (run.folder / FILE).read_bytes().splitlines(keepends=True)
    (run.folder / FILE).write_bytes(b"".join(lines[:-2]))
    told = _findings(verify_run(run.folder), "incomplete")
    assert len(told) == 2 and "no line tells of what is committed: evaluated 4" in told[0]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no run has begun here"):
        verify_run(tmp_path)


# ── a site's own ledger ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_was_rolled_back_is_seen_by_a_sites_ledger_alone(run: SignedRun) -> None:
    """Everything after turn 3 is taken away, lines and files: what is left fits, and is signed."""
    lines = (run.folder / FILE).read_bytes().splitlines(keepends=True)
    kept = next(i for i, line in enumerate(lines) if b'"kind":"turn"' in line and b'"turn":4' in line)
    (run.folder / FILE).write_bytes(b"".join(lines[:kept]))
    shutil.rmtree(run.folder / "checkpoints/00004")
    (run.folder / "evaluations/00004.json").unlink()
    (run.folder / "ended.json").unlink()
    assert verify_run(run.folder).verdict == "whole"
    told = _findings(verify_run(run.folder, site_ledgers=[run.sites["mayo"] / FILE]))
    assert any("the coordinator gave a receipt for test/r0002/v00004/mayo/train" in item for item in told), told
    assert any("of the coordinator's ledger, which has it no more" in item for item in told), told


def test_a_sites_ledger_without_a_contribution_that_the_coordinator_has_is_seen(run: SignedRun) -> None:
    path = run.sites["central"] / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    told = _findings(verify_run(run.folder, site_ledgers=[path]))
    assert told and all("the site's own ledger has no such statement" in item for item in told)


def test_a_ledger_of_no_site_of_the_run_is_incomplete(run: SignedRun, tmp_path: Path) -> None:
    assert verify_run(run.folder, site_ledgers=[tmp_path / "none"]).verdict == "incomplete"
    Ledger(tmp_path / "empty").append({"kind": "received", "statement": "0" * 64})
    told = _findings(verify_run(run.folder, site_ledgers=[tmp_path / "empty"]), "incomplete")
    assert told == ["empty: this site's ledger tells of no contribution to run test"]


# ── the command, and what goes with an exported model ───────────────────────────────────────────────────────────


def test_the_command_says_it_by_its_exit_code_and_its_last_line(run: SignedRun, consortium: Consortium) -> None:
    arguments = ["verify", str(run.folder), "--root-fingerprint", consortium.root_fingerprint]
    said = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})
    assert said.exit_code == 0 and said.output.splitlines()[-1].startswith("WHOLE")
    assert "16 contributions are signed by their sites" in said.output and "central" in said.output
    said = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert json.loads(said.output)["verdict"] == "whole"
    (run.folder / "ended.json").unlink()
    said = CliRunner().invoke(cli.app, arguments)
    assert said.exit_code == 10 and "INCOMPLETE" in said.output.splitlines()[-1]
    (run.folder / "run.json").write_bytes(b"\xff" + (run.folder / "run.json").read_bytes()[1:])
    said = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})
    assert said.exit_code == 9 and "run.json: byte 0: expected 0x7b, found 0xff" in said.output


def test_what_goes_with_an_exported_model_names_its_contributors(tmp_path: Path, alternating: SignedRun) -> None:
    copy_provenance(alternating.folder, tmp_path)
    assert (tmp_path / "provenance" / FILE).read_bytes() == (alternating.folder / FILE).read_bytes()
    assert (tmp_path / "provenance" / CERTIFICATES / "root.pem").exists()
    text = contributors_text(alternating.folder, 3)
    assert "| central | 2 | 13 | 2 |" in text and "| mayo | 1 | 12 | 1 |" in text, "turn 4 came later"
    assert alternating.run.manifest(3).state.digest in text
    assert contributors_text(tmp_path, 3) == ""
