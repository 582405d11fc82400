"""The whole federation on one machine: the same apps, no sockets; and the demo."""

import mammofed_shared.tls13  # noqa: F401  (before anything here imports grpc or flwr)
