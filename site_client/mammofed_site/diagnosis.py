"""Why does the coordinator not answer? grpc says only "Socket closed"; a handshake of our own says more.

A server of grpc sends no TLS alert: it closes the connection on a certificate that it does not accept, and greets (the
first frame of HTTP/2) on one that it does (grpcio 1.85). The alerts here come from what may stand between the two.
"""

import socket
import ssl
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import Identity, check_chain, read_certificates

_TIMEOUT_S = 5.0
MOST_SKEW_S = 60.0
"""Clocks that differ by less are nobody's worry: certificates begin a quarter of an hour before they are made."""
_EXPIRED, _NOT_YET, _WRONG_NAMES = 10, 9, (62, 64)
"""X509_V_ERR_… of OpenSSL: the server's certificate is too old, too new, not for this name or address."""
_ALERTS = {
    "UNKNOWN_CA": "it does not know the authority that signed this site's certificate: this is another consortium's "
    "coordinator, or the certificate is; enrol again with this coordinator's lead",
    "CERTIFICATE_EXPIRED": "it says that this site's certificate has expired: compare the clocks, or enrol again",
    "CERTIFICATE_REQUIRED": "it got no certificate from this site: something between the two ends TLS (a proxy or a "
    "virus scanner); ask for the port to be passed through",
    "BAD_CERTIFICATE": "it does not accept this site's certificate: enrol again",
    "CERTIFICATE_UNKNOWN": "it does not accept this site's certificate: enrol again",
    "CERTIFICATE_REVOKED": "it says that this site's certificate was revoked: ask the lead",
    "UNSUPPORTED_CERTIFICATE": "it does not accept this kind of certificate: enrol again",
}


def skew_words(coordinator_s: float, asked_s: float, answered_s: float) -> str:
    """What to say when this machine's clock and the coordinator's differ by more than a minute; empty otherwise.

    Args:
        coordinator_s: the coordinator's clock as it answered, seconds since the epoch; 0: it did not say.
        asked_s: this machine's clock when it asked.
        answered_s: and when the answer was here; the truth lies between the two.
    """
    skew_s = (asked_s + answered_s) / 2 - coordinator_s
    if not coordinator_s or abs(skew_s) <= MOST_SKEW_S + (answered_s - asked_s) / 2:
        return ""
    return (
        f"clock skew: this machine's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the "
        "coordinator's. Set the clock that is wrong (NTP): certificates that are new or about to end are refused by a "
        "wrong clock"
    )


def explain_unreachable(server: str, identity: Identity, grpc_said: str) -> str:
    """One sentence for the site's log: what is wrong between here and the coordinator, and what to do."""
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as raw:
            return f"coordinator {server}: {_handshake(raw, host, identity, grpc_said)}; trying again"
    except ConnectionRefusedError:
        return f"coordinator {server}: nothing listens there (not started yet, or restarting); trying again"
    except (OSError, ValueError) as error:
        return f"coordinator {server}: no connection ({error}): check address, firewall and DNS; trying again"
    except Exception as error:  # a diagnosis must not end what it diagnoses
        return f"coordinator {server}: {grpc_said} ({type(error).__name__}); trying again"


def _handshake(raw: socket.socket, host: str, identity: Identity, grpc_said: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=identity.root_pem.decode())
    with tempfile.TemporaryDirectory() as folder:  # ssl reads certificates from files only; the key is where it is
        chain = Path(folder) / "chain.pem"
        chain.write_bytes(identity.chain_pem)
        context.load_cert_chain(chain, identity.key_path)
    context.set_alpn_protocols(["h2"])  # without it grpc closes on everybody
    try:
        with context.wrap_socket(raw, server_hostname=host) as tls:
            tls.settimeout(_TIMEOUT_S)
            greeting = tls.recv(1)  # with TLS 1.3 the other side's refusal comes after the handshake
    except ssl.SSLCertVerificationError as error:
        return _not_accepted_here(error, host)
    except ssl.SSLError as error:
        reason = str(error.reason or error)
        for alert, words in _ALERTS.items():
            if alert in reason:
                return words
        return f"the secure connection fails ({reason}); both sides need TLS 1.3"
    except TimeoutError:
        return "it accepts this site's certificate but does not answer (busy, or starting)"
    except ConnectionError:
        greeting = b""
    if greeting:
        return f"it accepts this site's certificate but closed the call (restarting, or it said why: {grpc_said})"
    return f"it closes the connection right after this site's certificate, so it does not accept it: {_why(identity)}"


def _not_accepted_here(error: ssl.SSLCertVerificationError, host: str) -> str:
    clock = f"this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if error.verify_code == _EXPIRED:
        return f"its certificate has expired, {clock}: if the clock is right, the lead must run `fl-server ca refresh`"
    if error.verify_code == _NOT_YET:
        return f"its certificate is not yet valid, {clock}: set this machine's clock, or the lead sets the server's"
    if error.verify_code in _WRONG_NAMES:
        return (
            f"its certificate was not made for the address {host}: correct the setting server, or the lead runs "
            "`fl-server ca refresh --host` with this address"
        )
    return (
        f"its certificate was not accepted here ({error.verify_message}): this is another consortium's coordinator, or "
        "something between the two ends TLS (a proxy or a virus scanner)"
    )


def _why(identity: Identity) -> str:
    """The coordinator's certificate was accepted here, so its root is ours: what is left that it can find wrong?"""
    now = datetime.now(UTC)
    try:
        root = read_certificates(identity.root_pem, "the root")[0]
        check_chain(read_certificates(identity.chain_pem, "the chain"), root, identity.consortium, identity.name, now)
    except IdentityError as error:
        return str(error)
    return (
        f"clock skew, most likely: by this machine's clock, {now:%Y-%m-%d %H:%M} UTC, it is valid until "
        f"{identity.not_after:%Y-%m-%d %H:%M} UTC. Compare the two clocks; if they agree, ask the lead"
    )
