"""The coordinator: decides who trains when and adds up what comes back. It never sees an image."""

import mammofed_shared.tls13  # noqa: F401  (before anything here imports grpc or flwr)
