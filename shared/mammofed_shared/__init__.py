"""What is true on both sides: exams, DICOM, models, losses, tasks and the wire format."""
