"""A site comes by its certificate and renews it, whole or not at all, whatever is killed or sent."""

import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from identities import PASSPHRASE, Consortium, make_consortium
from mammofed_server import ca
from mammofed_shared import pki
from mammofed_shared.errors import IdentityError
from mammofed_shared.files import write_whole
from mammofed_shared.pki import pair
from mammofed_site import enrol

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path / "consortium", ["mayo"], now=NOW)


def _files(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _bundle(consortium: Consortium, folder: Path, site: str = "emory", days: int = 365) -> bytes:
    csr, fingerprint = enrol.request(folder, site, consortium.name)
    return ca.sign(consortium.authority, csr.read_bytes(), site, fingerprint, PASSPHRASE, days, NOW)


def test_a_request_makes_a_key_that_only_its_owner_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "site" / "identity"
    csr, fingerprint = enrol.request(folder, "mayo", "hospitals")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert pki.fingerprint(pki.read_request(csr.read_bytes())) == fingerprint
    assert b"PRIVATE" not in csr.read_bytes()


def test_a_second_request_keeps_the_key(tmp_path: Path) -> None:
    _, first = enrol.request(tmp_path, "mayo", "hospitals")
    key = (tmp_path / "key.pem").read_bytes()
    assert enrol.request(tmp_path, "mayo", "hospitals")[1] == first
    assert (tmp_path / "key.pem").read_bytes() == key


def test_a_request_for_no_site_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="site 'Mayo'"):
        enrol.request(tmp_path / "identity", "Mayo", "hospitals")
    assert not (tmp_path / "identity").exists()


def test_an_installed_bundle_is_an_identity_with_its_root_pinned(consortium: Consortium, tmp_path: Path) -> None:
    folder = tmp_path / "emory"
    bundle = _bundle(consortium, folder)
    identity = enrol.install(folder, bundle, "emory", "hospitals", consortium.root_fingerprint.upper(), NOW)
    assert identity == pki.load_identity(folder, "hospitals", "emory", NOW)
    assert (folder / "root.sha256").read_text().strip() == consortium.root_fingerprint
    assert enrol.install(folder, bundle, "emory", "hospitals", consortium.root_fingerprint, NOW) == identity


def test_a_bundle_that_is_not_right_changes_nothing(consortium: Consortium, tmp_path: Path) -> None:
    folder = tmp_path / "emory"
    bundle = _bundle(consortium, folder)
    other = make_consortium(tmp_path / "other", [], now=NOW)
    of_others = _bundle(other, folder)
    of_another_key = _bundle(consortium, tmp_path / "elsewhere")
    of_another_site = _bundle(consortium, folder, "upmc")
    root = consortium.root_fingerprint
    before = _files(folder)
    assert set(before) == {"key.pem", "request.csr"}
    for sent, told, now, match in [
        (of_others, root, NOW, "the bundle: the root of the consortium is .*Do not go on"),
        (bundle, other.root_fingerprint, NOW, "Do not go on"),
        (of_another_key, root, NOW, "was made from another request"),
        (of_another_site, root, NOW, "site/upmc, expected spiffe://hospitals/site/emory"),
        (bundle, root, NOW + timedelta(days=400), "has expired"),
        (bundle, root, NOW - timedelta(days=1), "not yet valid"),
        (
            (consortium.server / "root.pem").read_bytes(),
            root,
            NOW,
            "one certificate; expected the site's and the root",
        ),
        (bundle[: len(bundle) // 3], root, NOW, "no certificates in PEM"),
        (bundle, "sha256:12", NOW, "found 2 characters"),
    ]:
        with pytest.raises(IdentityError, match=match):
            enrol.install(folder, sent, "emory", "hospitals", told, now)
        assert _files(folder) == before


def test_a_pinned_root_is_not_replaced_by_another(consortium: Consortium, tmp_path: Path) -> None:
    folder = consortium.sites["mayo"]
    other = make_consortium(tmp_path / "other", [], now=NOW)
    bundle = _bundle(other, folder, "mayo")
    before = _files(folder)
    with pytest.raises(IdentityError, match="has pinned the root"):
        enrol.install(folder, bundle, "mayo", "hospitals", other.root_fingerprint, NOW)
    assert _files(folder) == before


def test_an_installation_killed_anywhere_is_finished_by_running_it_again(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "emory"
    bundle = _bundle(consortium, folder)
    for num_writes in range(2):
        with monkeypatch.context() as patch:
            _kill_after(patch, num_writes)
            with pytest.raises(KeyboardInterrupt):
                enrol.install(folder, bundle, "emory", "hospitals", consortium.root_fingerprint, NOW)
        with pytest.raises(IdentityError, match="missing"):
            pki.load_identity(folder, "hospitals", "emory", NOW)
    assert enrol.install(folder, bundle, "emory", "hospitals", consortium.root_fingerprint, NOW).name == "emory"


def _kill_after(patch: pytest.MonkeyPatch, num_writes: int) -> None:
    written = 0

    def write(path: Path, data: bytes | str, mode: int = 0o644) -> None:
        nonlocal written
        if written == num_writes:
            raise KeyboardInterrupt
        write_whole(path, data, mode)
        written += 1

    patch.setattr(enrol, "write_whole", write)


@pytest.mark.parametrize(("days", "due_before_days"), [(9, 3), (90, 30), (365, 30)])
def test_a_renewal_is_due_in_the_last_third_or_month(
    consortium: Consortium, tmp_path: Path, days: int, due_before_days: int
) -> None:
    folder = consortium.enrol("emory", tmp_path / "emory", days=days, now=NOW)
    identity = pki.load_identity(folder, "hospitals", "emory", NOW)
    due = identity.not_after - timedelta(days=due_before_days)
    assert not enrol.renewal_due(identity, NOW)
    assert not enrol.renewal_due(identity, due - timedelta(minutes=5))
    assert enrol.renewal_due(identity, due + timedelta(minutes=5))


def _renewal(consortium: Consortium, folder: Path, site: str = "mayo", now: datetime = NOW) -> bytes:
    csr = enrol.renewal_request(folder)
    return ca.renew(consortium.authority / ca.RENEWAL, site, csr, 7, now)


@pytest.fixture
def short(consortium: Consortium, tmp_path: Path) -> Path:
    """Identity folder of emory, with ten days to live."""
    return consortium.enrol("emory", tmp_path / "emory", days=10, now=NOW)


def test_a_renewal_changes_key_and_certificate_together(consortium: Consortium, short: Path) -> None:
    old = pki.load_identity(short, "hospitals", "emory", NOW)
    new = enrol.install_renewal(short, _renewal(consortium, short, "emory"), "emory", "hospitals", NOW)
    assert new.key_pem != old.key_pem
    assert new.not_after == NOW + timedelta(days=90)
    assert new.root_pem == old.root_pem
    assert set(_files(short)) == {"key.pem", "certificate.pem", "root.pem", "root.sha256", "request.csr"}


def test_a_renewal_can_be_renewed(consortium: Consortium, short: Path) -> None:
    first = enrol.install_renewal(short, _renewal(consortium, short, "emory"), "emory", "hospitals", NOW)
    later = NOW + timedelta(days=70)
    assert enrol.renewal_due(first, later)
    ca.refresh(consortium.authority, PASSPHRASE, now=later)
    second = enrol.install_renewal(short, _renewal(consortium, short, "emory", later), "emory", "hospitals", later)
    assert second.not_after == later + timedelta(days=90)


def test_a_request_whose_answer_was_lost_is_asked_again_with_the_same_key(short: Path) -> None:
    first = enrol.renewal_request(short)
    again = enrol.renewal_request(short)
    assert pki.fingerprint(pki.read_request(first)) == pki.fingerprint(pki.read_request(again))
    present = pki.load_identity(short, "hospitals", "emory", NOW)
    assert present.key_path.name == "key.pem"


def test_a_renewal_that_is_not_right_leaves_the_present_one(
    consortium: Consortium, short: Path, tmp_path: Path
) -> None:
    csr = enrol.renewal_request(short)
    renewals = consortium.authority / ca.RENEWAL
    other = make_consortium(tmp_path / "other", [], now=NOW)
    of_another_key = _renewal(consortium, consortium.sites["mayo"])
    before = _files(short)
    for sent, match in [
        (of_another_key, "asked for was"),
        (ca.renew(renewals, "upmc", csr, 7, NOW), "site/upmc, expected spiffe://hospitals/site/emory"),
        (ca.renew(other.authority / ca.RENEWAL, "emory", csr, 7, NOW), "is foreign"),
        (b"hello", "no certificates in PEM"),
    ]:
        with pytest.raises(IdentityError, match=match):
            enrol.install_renewal(short, sent, "emory", "hospitals", NOW)
        assert _files(short) == before
    assert pki.load_identity(short, "hospitals", "emory", NOW).name == "emory"


def test_a_renewal_that_would_shorten_a_certificate_is_left_aside(consortium: Consortium) -> None:
    folder = consortium.sites["mayo"]
    chain = _renewal(consortium, folder)
    with pytest.raises(IdentityError, match=r"no later than the present certificate.*ca refresh"):
        enrol.install_renewal(folder, chain, "mayo", "hospitals", NOW)
    assert pki.load_identity(folder, "hospitals", "mayo", NOW).not_after == NOW + timedelta(days=365)


@pytest.mark.parametrize("killed_in", ["write_whole", "settle"])
def test_a_renewal_killed_anywhere_leaves_a_key_and_its_certificate(
    consortium: Consortium, short: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    old = pki.load_identity(short, "hospitals", "emory", NOW)
    chain = _renewal(consortium, short, "emory")
    with monkeypatch.context() as patch:
        patch.setattr(pair, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            enrol.install_renewal(short, chain, "emory", "hospitals", NOW)
    left = pki.load_identity(short, "hospitals", "emory", NOW)
    renewed = killed_in == "settle"
    assert (left.not_after > old.not_after) is renewed
    assert (left.key_path.name == "next-key.pem") is renewed
    # The next renewal begins with a key of its own, or asks again with the one that got no answer.
    wanted = pki.fingerprint(pki.read_request(enrol.renewal_request(short)))
    assert (short / "next-key.pem").exists()
    assert wanted != pki.certificate_fingerprint(pki.read_pair(short).chain[0])
    assert pki.load_identity(short, "hospitals", "emory", NOW).key_path.name == "key.pem"
