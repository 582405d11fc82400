"""Keeps TLS 1.2 out of this process. The packages import it first of all, before anything can import grpc.

Python's grpcio cannot set a lowest TLS version. All keys of a consortium are elliptic-curve keys, so a list
of ciphers that holds nothing but RSA ciphers for TLS 1.2 leaves that version without a cipher to agree on;
the ciphers of TLS 1.3 are not governed by the list. grpcio 1.85 reads it at its own import and never again:
set a moment later it has no effect (measured; tests/shared/protocol/test_tls.py).
"""

import os
import sys

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
RSA_ONLY = "ECDHE-RSA-AES256-GCM-SHA384"


def require_tls13() -> bool:
    """Set the list for this process and its children, and say whether that was in time for grpc."""
    in_time = os.environ.get(VARIABLE) == RSA_ONLY or "grpc" not in sys.modules
    os.environ[VARIABLE] = RSA_ONLY
    return in_time


IN_TIME = require_tls13()
"""Whether grpc here offers no cipher of TLS 1.2; protocol/tls.py gives credentials only then."""
