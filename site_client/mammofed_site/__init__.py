"""One hospital: its data, its identity, its training. It never trusts the coordinator."""

import mammofed_shared.tls13  # noqa: F401  (before anything here imports grpc or flwr)
