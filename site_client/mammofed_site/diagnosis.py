"""Why does the coordinator not answer? grpc says only "Socket closed"; a handshake of our own says more.

A server of grpc sends no TLS alert: it closes the connection on a certificate that it does not accept, and greets (the
first frame of HTTP/2) on one that it does (grpcio 1.85). The alerts here come from what may stand between the two.
"""

import socket
import ssl
import tempfile
from pathlib import Path

from mammofed_shared.pki import Identity

_TIMEOUT_S = 5.0
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


def explain_unreachable(server: str, identity: Identity, grpc_said: str) -> str:
    """One sentence for the site's log: what is wrong between here and the coordinator, and what to do."""
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as raw:
            return f"coordinator {server}: {_handshake(raw, host, identity)}; trying again"
    except ConnectionRefusedError:
        return f"coordinator {server}: nothing listens there (not started yet, or restarting); trying again"
    except (OSError, ValueError) as error:
        return f"coordinator {server}: no connection ({error}): check address, firewall and DNS; trying again"
    except Exception as error:  # a diagnosis must not end what it diagnoses
        return f"coordinator {server}: {grpc_said} ({type(error).__name__}); trying again"


def _handshake(raw: socket.socket, host: str, identity: Identity) -> str:
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
        return (
            f"its certificate was not accepted here ({error.verify_message}): this is another consortium's "
            "coordinator, or its certificate has expired, or was not made for this address"
        )
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
        return "it accepts this site's certificate but closed the call (restarting)"
    return (
        "it closes the connection right after this site's certificate, so it does not accept it: another authority "
        f"signed it, or it has expired by the coordinator's clock (it is valid until "
        f"{identity.not_after:%Y-%m-%d %H:%M} UTC); ask the lead, or enrol again"
    )
