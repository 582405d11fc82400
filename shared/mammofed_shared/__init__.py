"""What is true on both sides: exams, DICOM, models, losses, tasks and the wire format."""

from mammofed_shared import tls13 as tls13  # first of all: see there
