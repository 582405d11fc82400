"""Mutual TLS 1.3 for grpc: credentials of both sides, and who the peer of a call is.

``mammofed_shared.tls13`` keeps older versions from being agreed; ``peer_of`` checks the agreed one all the same.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import grpc
from cryptography import x509

from mammofed_shared import tls13
from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import COORDINATOR, Identity, enrolment_serial, read_name

_TLS13 = b"TLSv1.3"
MAX_CHAIN_BYTES = 16 * 2**10
"""A leaf of ours and its issuer have 1.5 KB."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The site at the other end of a call, by its certificate."""

    site: str
    not_before: datetime
    not_after: datetime
    enrolment: int
    """Serial number of the certificate that it enrolled with; its own where it was never renewed."""
    serials: frozenset[int]
    """What a list of revoked certificates may name: its own, its issuer's, and that of the one it enrolled with."""


def server_credentials(
    identity: Identity, newer: Callable[[], Identity | None] | None = None
) -> grpc.ServerCredentials:
    """Credentials of a server that speaks only to holders of a certificate under the consortium's root.

    Args:
        identity: the server's at the beginning.
        newer: asked at each handshake, from any thread; another identity replaces the present one, None keeps it.
    """
    _require_floor()

    def configuration() -> grpc.ServerCertificateConfiguration | None:
        changed = newer() if newer is not None else None
        return None if changed is None else _server_configuration(changed)

    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(identity), configuration, require_client_authentication=True
    )


def _server_configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key_pem, identity.chain_pem)], root_certificates=identity.root_pem
    )


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """Credentials of a site: it trusts the consortium's root alone, not the roots of its machine."""
    _require_floor()
    return grpc.ssl_channel_credentials(
        root_certificates=identity.root_pem,
        private_key=identity.key_pem,
        certificate_chain=identity.chain_pem,
    )


def peer_of(auth_context: Mapping[str, Iterable[bytes]], consortium: str, now: datetime | None = None) -> Peer:
    """The site at the other end of a call, from grpc's ``context.auth_context()``.

    Dates are checked at each call: a connection may outlive the certificate it was opened with. Whether it was revoked
    is the coordinator's to say.

    Raises:
        IdentityError: the connection is not TLS 1.3, or its certificate is not that of a site of this consortium.
    """
    version = list(auth_context.get("ssl_tls_version", ()))
    if version != [_TLS13]:
        raise IdentityError(f"the connection speaks {_words(version)}; expected TLSv1.3. Update grpcio at the site.")
    leaf = list(auth_context.get("x509_pem_cert", ()))
    if len(leaf) != 1:
        raise IdentityError(f"the connection came with {len(leaf)} certificates; expected the site's own, exactly one.")
    issuers = b"".join(auth_context.get("x509_pem_cert_chain", ()))
    if len(leaf[0]) + len(issuers) > MAX_CHAIN_BYTES:
        raise IdentityError("the peer's certificates are longer than any of ours; the site must enrol again.")
    peer = _read_peer(leaf[0], issuers, consortium)
    require_current(peer, now or datetime.now(UTC))
    return peer


def require_current(peer: Peer, now: datetime) -> None:
    """Refuse a peer whose certificate does not serve at this moment.

    Raises:
        IdentityError: with both clocks' word, so that the site can tell an old certificate from a wrong clock.
    """
    clock = f"the coordinator's clock says {now:%Y-%m-%d %H:%M:%S} UTC"
    if now >= peer.not_after:
        raise IdentityError(
            f"expired: the site's certificate ended {peer.not_after:%Y-%m-%d %H:%M:%S} UTC while it was connected, "
            f"{clock}. If both clocks are right, the site must enrol again."
        )
    if now < peer.not_before:
        raise IdentityError(
            f"clock skew: the site's certificate begins {peer.not_before:%Y-%m-%d %H:%M:%S} UTC, {clock}. Set the "
            "coordinator's clock."
        )


@lru_cache(maxsize=256)
def _read_peer(leaf_pem: bytes, issuers_pem: bytes, consortium: str) -> Peer:
    """Reading a certificate takes 0.1 ms, and a site comes with the same one at every call."""
    try:
        leaf = x509.load_pem_x509_certificate(leaf_pem)
        issuers = x509.load_pem_x509_certificates(issuers_pem) if issuers_pem else []
        key_identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise IdentityError("the peer's certificate cannot be read; the site must enrol again.") from error
    found, name = read_name(leaf)
    if found != consortium or name == COORDINATOR:
        raise IdentityError(
            f"the peer is {name!r} of consortium {found!r}; expected a site of {consortium!r}. Sign its request with "
            "this consortium's `fl-server ca sign`."
        )
    enrolment, issuer = enrolment_serial(leaf), key_identifier.authority_cert_serial_number or 0
    return Peer(
        site=name,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        enrolment=enrolment,
        serials=frozenset({leaf.serial_number, enrolment, issuer, *(item.serial_number for item in issuers)}),
    )


def _require_floor() -> None:
    if not tls13.IN_TIME:
        raise IdentityError(
            "grpc was imported before mammofed in this process, so TLS 1.2 could be agreed. Import mammofed_shared "
            f"first, or set {tls13.VARIABLE}={tls13.RSA_ONLY} in the environment."
        )


def _words(version: list[bytes]) -> str:
    return ", ".join(item.decode("ascii", "replace") for item in version) or "no TLS"
