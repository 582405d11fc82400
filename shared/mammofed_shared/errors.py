"""Every error that mammofed raises on purpose, drawn as a tree.

    MammofedError
    ├── ConfigurationError      a YAML file or an override is wrong
    ├── IdentityError           a certificate or key is missing, expired, foreign or another site's
    ├── PayloadError            a payload file is not what its header or digest says
    ├── ProtocolError           the other side said something that the protocol does not allow
    ├── Refused                 a plan or an update was refused; carries a ``RefusalCode``
    ├── VisitFailed             the worker group ended without an update; carries a ``RefusalCode``
    ├── StateError              a run's folder is not in a state that allows this command
    ├── RunEnded                a run ended before its last turn
    │   ├── RunStopped          a visit failed and the run's policy is to stop
    │   └── RunCancelled        the lead cancelled it
    ├── Unreachable             the coordinator does not answer, or refuses this site
    ├── DataError               a data set is missing, empty or prepared otherwise than the run asks
    │   └── UnreadableImage     one DICOM file cannot be trusted; carries a reason word
    ├── CheckpointError         a checkpoint is incomplete or does not match its manifest
    └── CommandFailed           a command that the demo ran for its reader ended with an error

Messages say what was expected, what was found, where, and what to do. They never hold a patient's name, an
identifier or a file name of the hospital. What crosses the wire is never a message: only ``RefusalCode`` and numbers.
"""

from enum import Enum


class RefusalCode(Enum):
    """Why an update, a plan or a peer was refused: the only words about a failure that cross the wire."""

    DIGEST_MISMATCH = 1
    TENSOR_NAMES = 2
    TENSOR_SHAPE = 3
    TENSOR_DTYPE = 4
    NOT_FINITE = 5
    METRIC_NOT_ALLOWED = 6
    MALFORMED_PAYLOAD = 7
    TOO_LARGE = 9
    PREPROCESSING_MISMATCH = 10
    TEXT_ENCODER_MISMATCH = 11
    NO_DATA = 12
    WORKER_DIED = 13
    POLICY = 14
    OUT_OF_MEMORY = 15
    SETTINGS = 16
    NOT_FINITE_LOSS = 17
    DISK_FULL = 18
    VETOED = 19
    UPDATE_NORM = 20
    OUT_OF_HOURS = 21
    PRIVACY_BUDGET = 22
    ABSENT = 23
    STATEMENT = 24
    ENCODER_MISMATCH = 25


class MammofedError(Exception):
    """The root of all errors that a user can cause."""


class ConfigurationError(MammofedError):
    """A YAML file or an override is wrong; the message names file, line, key and the nearest right name."""


class IdentityError(MammofedError):
    """A certificate or key cannot serve: missing, expired, not yet valid, foreign, or another site's."""


class PayloadError(MammofedError):
    """A payload file is not a whole safetensors file, or not the one that its digest names."""

    def __init__(self, message: str, code: RefusalCode = RefusalCode.MALFORMED_PAYLOAD) -> None:
        super().__init__(message)
        self.code = code


class ProtocolError(MammofedError):
    """The other side said something that the protocol does not allow."""


class Refused(MammofedError):
    """A plan or an update was refused, with a code that may cross the wire and a message that may not."""

    def __init__(self, code: RefusalCode, message: str = "") -> None:
        super().__init__(f"{code.name}: {message}" if message else code.name)
        self.code = code


class VisitFailed(MammofedError):
    """The worker group ended without an update."""

    def __init__(self, code: RefusalCode, message: str = "") -> None:
        super().__init__(f"{code.name}: {message}" if message else code.name)
        self.code = code


class StateError(MammofedError):
    """A run's folder is not in a state that allows this command."""


class RunEnded(MammofedError):
    """A run ended before its last turn."""


class RunStopped(RunEnded):
    """A visit failed, and the run's policy is to stop (`fl-server resume` tries again); or a site refused the question
    before the first turn."""


class RunCancelled(RunEnded):
    """The lead cancelled the run."""


class Unreachable(MammofedError):
    """The coordinator refuses this site; trying again cannot help until somebody has acted."""


class DataError(MammofedError):
    """A data set is missing, empty, or prepared otherwise than the run asks."""

    def __init__(self, message: str, code: RefusalCode = RefusalCode.NO_DATA) -> None:
        super().__init__(message)
        self.code = code


class UnreadableImage(DataError):
    """One DICOM file cannot be trusted; ``reason`` is one word of the closed list in ``dicom/reasons.py``."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason


class CheckpointError(MammofedError):
    """A checkpoint is incomplete or does not match its manifest."""


class CommandFailed(MammofedError):
    """A command that the demo ran for its reader ended with an error; the message holds its last words."""
