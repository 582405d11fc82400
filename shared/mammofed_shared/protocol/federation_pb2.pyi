from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SiteState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SITE_STATE_UNSPECIFIED: _ClassVar[SiteState]
    READY: _ClassVar[SiteState]
    FETCHING: _ClassVar[SiteState]
    TRAINING: _ClassVar[SiteState]
    EVALUATING: _ClassVar[SiteState]
    SUBMITTING: _ClassVar[SiteState]
    COUNTING: _ClassVar[SiteState]
    OUT_OF_HOURS: _ClassVar[SiteState]
    VETOED: _ClassVar[SiteState]

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUNNING: _ClassVar[RunState]
    PAUSED: _ClassVar[RunState]
    FINISHED: _ClassVar[RunState]
    CANCELLED: _ClassVar[RunState]
    STOPPED: _ClassVar[RunState]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FP32: _ClassVar[Encoding]
    BF16: _ClassVar[Encoding]
    DELTA: _ClassVar[Encoding]

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    TRAIN: _ClassVar[Kind]
    EVALUATE: _ClassVar[Kind]
    QUERY: _ClassVar[Kind]

class FilterKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILTER_KIND_UNSPECIFIED: _ClassVar[FilterKind]
    CLIPPED: _ClassVar[FilterKind]
    GAUSSIAN_NOISE: _ClassVar[FilterKind]
    DP_SGD: _ClassVar[FilterKind]
    ENCODED_BF16: _ClassVar[FilterKind]
    ENCODED_DELTA: _ClassVar[FilterKind]
SITE_STATE_UNSPECIFIED: SiteState
READY: SiteState
FETCHING: SiteState
TRAINING: SiteState
EVALUATING: SiteState
SUBMITTING: SiteState
COUNTING: SiteState
OUT_OF_HOURS: SiteState
VETOED: SiteState
RUN_STATE_UNSPECIFIED: RunState
RUNNING: RunState
PAUSED: RunState
FINISHED: RunState
CANCELLED: RunState
STOPPED: RunState
FP32: Encoding
BF16: Encoding
DELTA: Encoding
KIND_UNSPECIFIED: Kind
TRAIN: Kind
EVALUATE: Kind
QUERY: Kind
FILTER_KIND_UNSPECIFIED: FilterKind
CLIPPED: FilterKind
GAUSSIAN_NOISE: FilterKind
DP_SGD: FilterKind
ENCODED_BF16: FilterKind
ENCODED_DELTA: FilterKind

class HelloRequest(_message.Message):
    __slots__ = ("protocol_version", "software_contract", "site", "num_training_exams", "num_test_exams", "data", "code")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    NUM_TRAINING_EXAMS_FIELD_NUMBER: _ClassVar[int]
    NUM_TEST_EXAMS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software_contract: str
    site: str
    num_training_exams: int
    num_test_exams: int
    data: str
    code: str
    def __init__(self, protocol_version: _Optional[int] = ..., software_contract: _Optional[str] = ..., site: _Optional[str] = ..., num_training_exams: _Optional[int] = ..., num_test_exams: _Optional[int] = ..., data: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("protocol_version", "software_contract", "run", "time")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software_contract: str
    run: str
    time: float
    def __init__(self, protocol_version: _Optional[int] = ..., software_contract: _Optional[str] = ..., run: _Optional[str] = ..., time: _Optional[float] = ...) -> None: ...

class PollRequest(_message.Message):
    __slots__ = ("state", "task_id", "epoch", "step", "num_steps", "loss", "samples_per_s", "wait_s", "steps_per_s", "protocol_version")
    STATE_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_S_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    state: SiteState
    task_id: str
    epoch: int
    step: int
    num_steps: int
    loss: float
    samples_per_s: float
    wait_s: int
    steps_per_s: float
    protocol_version: int
    def __init__(self, state: _Optional[_Union[SiteState, str]] = ..., task_id: _Optional[str] = ..., epoch: _Optional[int] = ..., step: _Optional[int] = ..., num_steps: _Optional[int] = ..., loss: _Optional[float] = ..., samples_per_s: _Optional[float] = ..., wait_s: _Optional[int] = ..., steps_per_s: _Optional[float] = ..., protocol_version: _Optional[int] = ...) -> None: ...

class PollReply(_message.Message):
    __slots__ = ("run_state", "plan", "cancel")
    RUN_STATE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    run_state: RunState
    plan: Plan
    cancel: bool
    def __init__(self, run_state: _Optional[_Union[RunState, str]] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., cancel: _Optional[bool] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("digest", "size")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("task_id", "run", "round", "visit", "site", "kind", "epochs", "epochs_before", "epochs_total", "seed", "moments_from", "task_settings", "preprocessing", "text_encoder", "state", "configuration", "rounds_total", "num_sites", "proximal_mu", "control_variates", "download", "upload", "ledger_head", "encoder")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VISIT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MOMENTS_FROM_FIELD_NUMBER: _ClassVar[int]
    TASK_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_FIELD_NUMBER: _ClassVar[int]
    TEXT_ENCODER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    NUM_SITES_FIELD_NUMBER: _ClassVar[int]
    PROXIMAL_MU_FIELD_NUMBER: _ClassVar[int]
    CONTROL_VARIATES_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEAD_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    run: str
    round: int
    visit: int
    site: str
    kind: Kind
    epochs: int
    epochs_before: int
    epochs_total: int
    seed: int
    moments_from: str
    task_settings: str
    preprocessing: str
    text_encoder: str
    state: Payload
    configuration: str
    rounds_total: int
    num_sites: int
    proximal_mu: float
    control_variates: bool
    download: Encoding
    upload: Encoding
    ledger_head: str
    encoder: str
    def __init__(self, task_id: _Optional[str] = ..., run: _Optional[str] = ..., round: _Optional[int] = ..., visit: _Optional[int] = ..., site: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., epochs: _Optional[int] = ..., epochs_before: _Optional[int] = ..., epochs_total: _Optional[int] = ..., seed: _Optional[int] = ..., moments_from: _Optional[str] = ..., task_settings: _Optional[str] = ..., preprocessing: _Optional[str] = ..., text_encoder: _Optional[str] = ..., state: _Optional[_Union[Payload, _Mapping]] = ..., configuration: _Optional[str] = ..., rounds_total: _Optional[int] = ..., num_sites: _Optional[int] = ..., proximal_mu: _Optional[float] = ..., control_variates: _Optional[bool] = ..., download: _Optional[_Union[Encoding, str]] = ..., upload: _Optional[_Union[Encoding, str]] = ..., ledger_head: _Optional[str] = ..., encoder: _Optional[str] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("task_id", "offset")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    offset: int
    def __init__(self, task_id: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class OffsetRequest(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class OffsetReply(_message.Message):
    __slots__ = ("offset", "ended")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    offset: int
    ended: bool
    def __init__(self, offset: _Optional[int] = ..., ended: _Optional[bool] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("kind", "value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: FilterKind
    value: float
    def __init__(self, kind: _Optional[_Union[FilterKind, str]] = ..., value: _Optional[float] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("previous", "configuration", "code", "data", "num_exams", "state", "update", "metrics", "filters", "ledger_head", "signature")
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEAD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    previous: str
    configuration: str
    code: str
    data: str
    num_exams: int
    state: str
    update: str
    metrics: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    ledger_head: str
    signature: bytes
    def __init__(self, previous: _Optional[str] = ..., configuration: _Optional[str] = ..., code: _Optional[str] = ..., data: _Optional[str] = ..., num_exams: _Optional[int] = ..., state: _Optional[str] = ..., update: _Optional[str] = ..., metrics: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., ledger_head: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SubmitHeader(_message.Message):
    __slots__ = ("task_id", "payload", "metrics", "offset", "statement")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    payload: Payload
    metrics: _containers.ScalarMap[str, float]
    offset: int
    statement: Statement
    def __init__(self, task_id: _Optional[str] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., offset: _Optional[int] = ..., statement: _Optional[_Union[Statement, _Mapping]] = ...) -> None: ...

class SubmitPart(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: SubmitHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[SubmitHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("accepted", "refusal_code", "restart", "receipt", "receipt_chain")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_CODE_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_CHAIN_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    refusal_code: int
    restart: bool
    receipt: bytes
    receipt_chain: bytes
    def __init__(self, accepted: _Optional[bool] = ..., refusal_code: _Optional[int] = ..., restart: _Optional[bool] = ..., receipt: _Optional[bytes] = ..., receipt_chain: _Optional[bytes] = ...) -> None: ...

class FailRequest(_message.Message):
    __slots__ = ("task_id", "refusal_code")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_CODE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    refusal_code: int
    def __init__(self, task_id: _Optional[str] = ..., refusal_code: _Optional[int] = ...) -> None: ...

class FailReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate_chain",)
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    certificate_chain: bytes
    def __init__(self, certificate_chain: _Optional[bytes] = ...) -> None: ...
