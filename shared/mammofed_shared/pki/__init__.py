"""Who is who: keys, certificates and the names in them, as both sides need them. Free of torch and grpc.

``names`` says how a site is written in a certificate, ``keys`` makes and reads keys and requests, ``pair``
keeps a key and its certificate together on disk, ``identity`` checks all of it before the first connection.
"""

from mammofed_shared.pki.identity import (
    PIN_FILE,
    ROOT_FILE,
    Identity,
    check_chain,
    check_pin,
    load_identity,
)
from mammofed_shared.pki.keys import (
    KEY_MODE,
    certificate_fingerprint,
    fingerprint,
    key_pem,
    make_key,
    make_request,
    normal_fingerprint,
    private_folder,
    read_key,
    read_request,
)
from mammofed_shared.pki.names import (
    COORDINATOR,
    authority_consortium,
    authority_uri,
    coordinator_uri,
    name_uri,
    read_name,
    site_uri,
)
from mammofed_shared.pki.pair import (
    CERTIFICATE_FILE,
    KEY_FILE,
    NEXT_KEY_FILE,
    Pair,
    commit_pair,
    read_certificates,
    read_pair,
    settle,
)

__all__ = [
    "CERTIFICATE_FILE",
    "COORDINATOR",
    "KEY_FILE",
    "KEY_MODE",
    "NEXT_KEY_FILE",
    "PIN_FILE",
    "ROOT_FILE",
    "Identity",
    "Pair",
    "authority_consortium",
    "authority_uri",
    "certificate_fingerprint",
    "check_chain",
    "check_pin",
    "commit_pair",
    "coordinator_uri",
    "fingerprint",
    "key_pem",
    "load_identity",
    "make_key",
    "make_request",
    "name_uri",
    "normal_fingerprint",
    "private_folder",
    "read_certificates",
    "read_key",
    "read_name",
    "read_pair",
    "read_request",
    "settle",
    "site_uri",
]
