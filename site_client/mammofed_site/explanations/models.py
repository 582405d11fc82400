"""The models that explain a site's exams, from the folders that the site has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from mammofed_shared.config.features import AsymmetryFeatures
from mammofed_shared.config.frozen_encoder import TEXT_FOLDER, encoder_digest, read_encoder
from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.evaluation.frozen_encoder import load_frozen_dual_encoder, load_frozen_image_encoder
from mammofed_shared.interpretability.ablation import Reader
from mammofed_shared.models.asymmirai import AsymmetryHead
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.mirai import MiraiHead
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.report.tokenize import ReportTokenizer
from mammofed_shared.training.exported import ExportedModel, load_exported
from mammofed_shared.training.risk_model import RiskModel
from mammofed_site.torch_device import device_of

RISK_TASKS = ("risk-mirai", "risk-asymmirai")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, for the page's table."""

    what: str
    run: str
    turn: int
    code: str
    digest: str


@dataclass(frozen=True, slots=True)
class NeuronHead:
    """MIRAI w/ Mammo-FM, and the settings of its run."""

    head: MiraiHead
    settings: RiskMiraiSettings


@dataclass(frozen=True, slots=True)
class PairHead:
    """AsymMIRAI w/ Mammo-FM, and what its run says of windows and missing views."""

    head: AsymmetryHead
    settings: RiskAsymmiraiSettings
    window: AsymmetryFeatures


@dataclass(frozen=True, slots=True)
class ExplainingModels:
    """All of one site's models, on one device. ``reader`` is there where ``neurons`` is; ``preprocessing`` is the
    digest of what the frozen model's images were."""

    image_encoder: ImageEncoder
    device: torch.device
    reader: Reader | None
    neurons: NeuronHead | None
    pairs: PairHead | None
    preprocessing: str
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class FrozenModel:
    """The frozen model of the site's YAML: its folder, digest, and the digest of what its images were."""

    folder: Path
    digest: str
    preprocessing: str


def frozen_model(settings: SiteSettings) -> FrozenModel:
    """The frozen model that this site names.

    Raises:
        ConfigurationError: it names none, or the folder is no export.
    """
    if settings.encoder is None:
        raise ConfigurationError(
            "`encoder` of the site's YAML names no frozen model, on which every explanation stands: name the folder "
            "that `fl-server export` wrote of the pretraining run"
        )
    return FrozenModel(
        settings.encoder, encoder_digest(settings.encoder), read_encoder(settings.encoder).preprocessing.digest
    )


def load_reader(frozen: FrozenModel, autoencoder: Path, device: torch.device) -> tuple[Reader, Origin]:
    """The frozen model and an autoencoder of its maps.

    Raises:
        ConfigurationError: the folder is no export of a run of `sae` that stands on this frozen model.
    """
    exported = load_exported(autoencoder, ("sae",), frozen.digest)
    assert isinstance(exported.model, SparseAutoencoder), "the task sae trains one"
    tokenizer = ReportTokenizer(frozen.folder / TEXT_FOLDER, read_encoder(frozen.folder).task.text_encoder.max_tokens)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the command has its own
    encoder = load_frozen_dual_encoder(frozen.folder).to(device)
    return Reader(encoder, tokenizer, exported.model.to(device), device), _origin("sparse autoencoder", exported)


def load_models(settings: SiteSettings, risk: Sequence[Path], autoencoder: Path | None) -> ExplainingModels:
    """Load what explains an exam's risk.

    Args:
        risk: one folder of a run of risk-mirai, or of risk-asymmirai, or one of each; exports.
        autoencoder: export of a run of sae; risk-mirai needs it.

    Raises:
        ConfigurationError: a folder is no such export or stands on another frozen model; there are two of a kind, or
            the autoencoder is missing or not needed; the device is not there.
    """
    device = device_of(settings.worker.device)
    frozen = frozen_model(settings)
    heads = [load_exported(folder, RISK_TASKS, frozen.digest) for folder in risk]
    if len({item.task.name for item in heads}) < len(heads):
        raise ConfigurationError("--risk: expected at most one folder of each risk task, found two of one")
    by_task = {item.task.name: item for item in heads}
    if ("risk-mirai" in by_task) != (autoencoder is not None):
        raise ConfigurationError(
            "--risk of a run of risk-mirai and --autoencoder go together: the autoencoder's neurons explain that head"
        )
    reader, origins = None, [Origin("frozen model", "", 0, "", frozen.digest)]
    origins += [_origin(f"risk head, {item.task.name}", item) for item in heads]
    if autoencoder is not None:
        reader, origin = load_reader(frozen, autoencoder, device)
        origins.append(origin)
    mirai, asymmirai = by_task.get("risk-mirai"), by_task.get("risk-asymmirai")
    encoder = load_frozen_image_encoder(frozen.folder).to(device) if reader is None else reader.encoder.image_encoder
    return ExplainingModels(
        image_encoder=encoder,
        device=device,
        reader=reader,
        neurons=None if mirai is None else _neuron_head(mirai, device),
        pairs=None if asymmirai is None else _pair_head(asymmirai, device),
        preprocessing=frozen.preprocessing,
        origins=tuple(origins),
    )


def _neuron_head(exported: ExportedModel, device: torch.device) -> NeuronHead:
    assert isinstance(exported.model, RiskModel) and isinstance(exported.task, RiskMiraiSettings)
    head = exported.model.head
    assert isinstance(head, MiraiHead), "the task risk-mirai trains one"
    return NeuronHead(head.to(device), exported.task)


def _pair_head(exported: ExportedModel, device: torch.device) -> PairHead:
    assert isinstance(exported.model, RiskModel) and isinstance(exported.task, RiskAsymmiraiSettings)
    head, task = exported.model.head, exported.task
    assert isinstance(head, AsymmetryHead), "the task risk-asymmirai trains one"
    return PairHead(head.to(device), task, AsymmetryFeatures(window=task.window, stride=task.stride))


def _origin(what: str, exported: ExportedModel) -> Origin:
    return Origin(what, exported.run, exported.turn, exported.code, exported.digest)
