"""What is true on both sides: exams, DICOM, models, losses, tasks and the wire format."""

import os

from mammofed_shared import tls13 as tls13  # first of all: see there

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # Flower reads it once, when it is imported
# At its default grpc writes a line to standard error for each handshake that fails: a stranger could fill the journal.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
