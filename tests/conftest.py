"""Imported before any test module."""

import mammofed_shared  # noqa: F401  (tls13 must come before the first import of grpc or flwr)
