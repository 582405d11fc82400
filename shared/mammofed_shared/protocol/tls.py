"""Mutual TLS 1.3 for grpc: credentials of both sides, and who the peer of a call is.

``mammofed_shared.tls13`` keeps older versions from being agreed; ``peer_site`` checks the agreed one all the
same.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import grpc
from cryptography import x509

from mammofed_shared import tls13
from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import COORDINATOR, Identity, read_name

_TLS13 = b"TLSv1.3"


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Credentials of a server that speaks only to holders of a certificate under the consortium's root."""
    _require_floor()
    return grpc.ssl_server_credentials(
        [(identity.key_pem, identity.chain_pem)],
        root_certificates=identity.root_pem,
        require_client_auth=True,
    )


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """Credentials of a site: it trusts the consortium's root alone, not the roots of its machine."""
    _require_floor()
    return grpc.ssl_channel_credentials(
        root_certificates=identity.root_pem,
        private_key=identity.key_pem,
        certificate_chain=identity.chain_pem,
    )


def peer_site(auth_context: Mapping[str, Iterable[bytes]], consortium: str, now: datetime | None = None) -> str:
    """The site at the other end of a call, from grpc's ``context.auth_context()``.

    Dates are checked at each call: a connection may outlive the certificate it was opened with.

    Raises:
        IdentityError: the connection is not TLS 1.3, or its certificate is not that of a site of this consortium.
    """
    version = list(auth_context.get("ssl_tls_version", ()))
    if version != [_TLS13]:
        raise IdentityError(f"the connection speaks {_words(version)}; expected TLSv1.3. Update grpcio at the site.")
    certificate = _leaf(auth_context)
    moment = now or datetime.now(UTC)
    if not certificate.not_valid_before_utc <= moment < certificate.not_valid_after_utc:
        raise IdentityError(
            f"the peer's certificate ended {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC while it was "
            f"connected, or the clock was set: it says {moment:%Y-%m-%d %H:%M} UTC. The site must renew it or enrol "
            "again."
        )
    found, name = read_name(certificate)
    if found != consortium or name == COORDINATOR:
        raise IdentityError(
            f"the peer is {name!r} of consortium {found!r}; expected a site of {consortium!r}. Sign its request with "
            "this consortium's `fl-server ca sign`."
        )
    return name


def _require_floor() -> None:
    if not tls13.IN_TIME:
        raise IdentityError(
            "grpc was imported before mammofed in this process, so TLS 1.2 could be agreed. Import mammofed_shared "
            f"first, or set {tls13.VARIABLE}={tls13.RSA_ONLY} in the environment."
        )


def _leaf(auth_context: Mapping[str, Iterable[bytes]]) -> x509.Certificate:
    found = list(auth_context.get("x509_pem_cert", ()))
    if len(found) != 1:
        raise IdentityError(
            f"the connection came with {len(found)} certificates; expected the site's own, exactly one."
        )
    try:
        return x509.load_pem_x509_certificate(found[0])
    except ValueError as error:
        raise IdentityError("the peer's certificate cannot be read; the site must enrol again.") from error


def _words(version: list[bytes]) -> str:
    return ", ".join(item.decode("ascii", "replace") for item in version) or "no TLS"
