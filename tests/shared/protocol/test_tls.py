"""Real connections on 127.0.0.1: who gets through, who does not, and who the server takes a peer for."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from identities import Consortium, make_consortium
from mammofed_server import ca
from mammofed_shared import tls13
from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import Identity, load_identity
from mammofed_shared.protocol.tls import channel_credentials, peer_of, server_credentials
from mammofed_site import enrol

METHOD = "/test/Who"
LONG_S = 5.0


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["mayo", "upmc"])


@pytest.fixture(scope="module")
def port(consortium: Consortium) -> Iterator[int]:
    """A server that answers with the site that it takes the caller for."""

    def who(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return peer_of(context.auth_context(), consortium.name).site.encode()
        except IdentityError as error:
            return f"refused: {error}".encode()

    handler = grpc.method_handlers_generic_handler("test", {"Who": grpc.unary_unary_rpc_method_handler(who)})
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        number = server.add_secure_port("127.0.0.1:0", server_credentials(consortium.server_identity()))
        server.start()
        yield number
        server.stop(None).wait()


def _ask(port: int, credentials: grpc.ChannelCredentials) -> str:
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        answer: bytes = channel.unary_unary(METHOD)(b"", timeout=LONG_S)
    return answer.decode()


def _refused(port: int, credentials: grpc.ChannelCredentials) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _ask(port, credentials)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def _handshake(port: int, identity: Identity, folder: Path, version: ssl.TLSVersion, ciphers: str) -> str | None:
    """The version that Python's own TLS agrees with the server, once the server has answered something."""
    (folder / "key.pem").write_bytes(identity.key_pem)
    (folder / "chain.pem").write_bytes(identity.chain_pem)
    context = ssl.create_default_context(cadata=identity.root_pem.decode())
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), LONG_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.recv(1)  # the server's HTTP/2 settings: it accepted the client's certificate too
        return secure.version()


def test_an_enrolled_site_gets_through_and_is_known_by_its_certificate(port: int, consortium: Consortium) -> None:
    for site in ("mayo", "upmc"):
        assert _ask(port, channel_credentials(consortium.site_identity(site))) == site


def test_a_renewed_certificate_gets_through_with_its_issuer(port: int, consortium: Consortium, tmp_path: Path) -> None:
    folder = consortium.enrol("mayo", tmp_path / "mayo", days=20)
    csr = enrol.renewal_request(folder)
    chain = ca.renew(consortium.authority / ca.RENEWAL, "mayo", csr, 7)
    identity = enrol.install_renewal(folder, chain, "mayo", consortium.name)
    assert identity.chain_pem.count(b"BEGIN CERTIFICATE") == 2
    assert _ask(port, channel_credentials(identity)) == "mayo"


def test_a_client_that_speaks_tls_1_3_agrees_it(port: int, consortium: Consortium, tmp_path: Path) -> None:
    version = _handshake(port, consortium.site_identity("mayo"), tmp_path, ssl.TLSVersion.TLSv1_3, "ALL")
    assert version == "TLSv1.3"


def test_a_client_that_speaks_tls_1_2_only_is_refused(port: int, consortium: Consortium, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError, match=r"EOF|(?i:handshake failure)"):  # BoringSSL hangs up
        _handshake(port, consortium.site_identity("mayo"), tmp_path, ssl.TLSVersion.TLSv1_2, "ALL")


def test_a_client_without_certificate_is_refused(port: int, consortium: Consortium) -> None:
    _refused(port, grpc.ssl_channel_credentials(consortium.site_identity("mayo").root_pem))


def test_a_client_without_encryption_is_refused(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(METHOD)(b"", timeout=LONG_S)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_site_of_another_consortium_is_refused(port: int, consortium: Consortium, tmp_path: Path) -> None:
    foreign = make_consortium(tmp_path, ["mayo"]).site_identity("mayo")
    # It trusts our server, so that nothing but its own certificate can be the reason.
    trusting = replace(foreign, root_pem=consortium.site_identity("mayo").root_pem)
    _refused(port, channel_credentials(trusting))


def test_a_site_does_not_talk_to_the_server_of_another_consortium(port: int, tmp_path: Path) -> None:
    _refused(port, channel_credentials(make_consortium(tmp_path, ["mayo"]).site_identity("mayo")))


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    then = datetime.now(UTC) - timedelta(days=10)
    past = make_consortium(tmp_path, [], now=then)
    folder = past.enrol("mayo", tmp_path / "mayo", days=1, now=then)
    expired = load_identity(folder, past.name, "mayo", then)
    old_server = past.server_identity()
    assert expired.not_after < datetime.now(UTC) < old_server.not_after
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        number = server.add_secure_port("127.0.0.1:0", server_credentials(old_server))
        server.start()
        _refused(number, channel_credentials(expired))
        server.stop(None).wait()


def test_the_servers_own_certificate_does_not_pass_for_a_site(port: int, consortium: Consortium) -> None:
    _refused(port, channel_credentials(consortium.server_identity()))


def test_a_sites_certificate_does_not_pass_for_the_server(consortium: Consortium) -> None:
    with ThreadPoolExecutor(1) as pool:
        impostor = grpc.server(pool)
        credentials = server_credentials(consortium.site_identity("upmc"))
        number = impostor.add_secure_port("127.0.0.1:0", credentials)
        impostor.start()
        _refused(number, channel_credentials(consortium.site_identity("mayo")))
        impostor.stop(None).wait()


def test_the_cipher_list_is_what_keeps_tls_1_2_out(consortium: Consortium, tmp_path: Path) -> None:
    """Without it the same server would agree TLS 1.2, so the test above does see the list's effect."""
    code = (
        "import sys, grpc, pathlib\n"
        "pem = [pathlib.Path(p).read_bytes() for p in sys.argv[1:4]]\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "server = grpc.server(ThreadPoolExecutor(1))\n"
        "credentials = grpc.ssl_server_credentials([(pem[0], pem[1])], pem[2], True)\n"
        "print(server.add_secure_port('127.0.0.1:0', credentials), flush=True)\n"
        "server.start(); sys.stdin.read(); server.stop(None).wait()\n"
    )
    files = [str(consortium.server / name) for name in ("key.pem", "certificate.pem", "root.pem")]
    environment = {key: value for key, value in os.environ.items() if key != tls13.VARIABLE}
    command = [sys.executable, "-c", code, *files]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        mayo = consortium.site_identity("mayo")
        assert _handshake(number, mayo, tmp_path, ssl.TLSVersion.TLSv1_2, "ALL") == "TLSv1.2"
        process.communicate()


def _context(consortium: Consortium, site: str, version: bytes = b"TLSv1.3") -> dict[str, list[bytes]]:
    leaf = consortium.site_identity(site).chain_pem
    return {"ssl_tls_version": [version], "x509_pem_cert": [leaf]}


def test_a_connection_of_an_older_version_has_no_peer(consortium: Consortium) -> None:
    with pytest.raises(IdentityError, match=r"speaks TLSv1\.2; expected TLSv1\.3"):
        peer_of(_context(consortium, "mayo", b"TLSv1.2"), consortium.name)
    with pytest.raises(IdentityError, match="speaks no TLS"):
        peer_of({}, consortium.name)


def test_a_peer_of_another_trust_domain_is_no_site(consortium: Consortium) -> None:
    with pytest.raises(IdentityError, match="of consortium 'hospitals'; expected a site of 'clinics'"):
        peer_of(_context(consortium, "mayo"), "clinics")


def test_a_connection_does_not_outlive_its_certificate(consortium: Consortium) -> None:
    assert peer_of(_context(consortium, "mayo"), consortium.name).site == "mayo"
    with pytest.raises(IdentityError, match="while it was connected"):
        peer_of(_context(consortium, "mayo"), consortium.name, datetime.now(UTC) + timedelta(days=366))


@pytest.mark.parametrize(("first", "in_time"), [("mammofed_server", True), ("grpc", False)])
def test_credentials_are_given_only_where_the_cipher_list_came_in_time(
    consortium: Consortium, first: str, in_time: bool
) -> None:
    code = (
        f"import {first}, grpc, pathlib, sys\n"
        "from mammofed_shared.protocol.tls import server_credentials\n"
        "from mammofed_shared.pki import load_identity\n"
        "server_credentials(load_identity(pathlib.Path(sys.argv[1]), 'hospitals', 'coordinator'))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != tls13.VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", code, str(consortium.server)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is in_time, done.stderr
    assert ("grpc was imported before mammofed" in done.stderr) is not in_time
