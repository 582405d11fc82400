"""Who is who: keys, certificates and the names in them, as both sides need them. Free of torch and grpc.

``names`` says how a site is written in a certificate, ``keys`` makes and reads keys and requests, ``pair``
keeps a key and its certificate together on disk, ``identity`` checks all of it before the first connection,
``revocation`` reads the list of what was revoked, ``expiry`` warns of what ends soon.
"""

from mammofed_shared.pki.expiry import WARN_WITHIN, Reminder, days_left, expiry_warning
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
    enrolment_extension,
    enrolment_serial,
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
from mammofed_shared.pki.revocation import REVOKED_FILE, RevocationList, read_revocations

__all__ = [
    "CERTIFICATE_FILE",
    "COORDINATOR",
    "KEY_FILE",
    "KEY_MODE",
    "NEXT_KEY_FILE",
    "PIN_FILE",
    "REVOKED_FILE",
    "ROOT_FILE",
    "WARN_WITHIN",
    "Identity",
    "Pair",
    "Reminder",
    "RevocationList",
    "authority_consortium",
    "authority_uri",
    "certificate_fingerprint",
    "check_chain",
    "check_pin",
    "commit_pair",
    "coordinator_uri",
    "days_left",
    "enrolment_extension",
    "enrolment_serial",
    "expiry_warning",
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
    "read_revocations",
    "settle",
    "site_uri",
]
