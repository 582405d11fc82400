"""A checkpoint as folders that ``timm`` and ``transformers`` load without our code. Free of torch itself.

<output>/image_encoder/    config.json, model.safetensors: timm.create_model("local-dir:…", pretrained=True)
<output>/text_encoder/     config.json, tokenizer, model.safetensors: transformers.AutoModel.from_pretrained(…)
<output>/projections.safetensors   image_projection.weight, text_projection.weight, log_scale
<output>/manifest.json, README.md
<output>/provenance/       the run's ledger and its certificates; README.md names the contributors

The whole folder is what a later run names as its ``encoder``. Of a run of the task ``text`` there are no image encoder
and no projections, but

<output>/heads.safetensors   masked_head.…, pair_head.…

and its text_encoder/ is what a later run names as its ``text_encoder``. Of a run that stands on a frozen model there is
heads.safetensors alone, with all that it trained.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save_file

from mammofed_server.provenance import contributors_text, copy_provenance
from mammofed_shared.checkpoint import MANIFEST_FILE, Manifest, read_checkpoint
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import CheckpointError, StateError
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.task_spec import CONTROL

INTENSITY_MEAN, INTENSITY_STD = 0.3089279, 0.25053555408335154
"""As in models/image_encoder.py, which cannot be imported here: it loads torch (held equal by a test)."""

_IMAGE, _TEXT, _HEAD = "image_encoder.model.", "text_encoder.model.", "masked_head."


def export_checkpoint(checkpoint: Path, text_encoder: Path | None, output: Path) -> None:
    """Write the export folder whole or not at all.

    Args:
        checkpoint: folder of a checkpoint; verified before anything is written.
        text_encoder: the folder that the run used, if it trained one; its configuration and tokenizer are copied.
        output: must not exist.

    Raises:
        CheckpointError: the checkpoint is damaged, or the text encoder is not the run's.
        StateError: the output exists.
    """
    if output.exists():
        raise StateError(f"{output} exists; give --output a new folder")
    manifest, payload = read_checkpoint(checkpoint)
    found = folder_digest(text_encoder) if text_encoder is not None else None
    if found != manifest.text_encoder:
        raise CheckpointError(f"{text_encoder}: expected digest {manifest.text_encoder}, found {found}")
    temporary = output.with_name(f".{output.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    task = manifest.settings.task
    with payload:
        rest = {name: payload[name] for name in payload if not name.startswith((_IMAGE, _TEXT, CONTROL))}
        weights = temporary / "text_encoder" / "model.safetensors"
        if text_encoder is not None:
            _copy_configuration(text_encoder, weights.parent)
        if isinstance(task, PretrainSettings):
            _write_image_encoder(temporary / "image_encoder", payload, manifest, task)
            _save(weights, _without_prefix(payload, _TEXT))
            _save(temporary / "projections.safetensors", rest)
            readme = _pretrain_readme(manifest, task)
        elif text_encoder is not None:
            _save(weights, _adapted_weights(payload, text_encoder))
            _save(temporary / "heads.safetensors", rest)
            readme = _text_readme(manifest)
        else:
            _save(temporary / "heads.safetensors", rest)
            readme = _heads_readme(manifest)
    shutil.copyfile(checkpoint / MANIFEST_FILE, temporary / MANIFEST_FILE)
    run_folder = checkpoint.parent.parent
    copy_provenance(run_folder, temporary)
    write_whole(temporary / "README.md", readme + contributors_text(run_folder, manifest.turn))
    temporary.rename(output)


def _write_image_encoder(folder: Path, payload: Payload, manifest: Manifest, task: PretrainSettings) -> None:
    settings = task.image_encoder
    preprocessing = manifest.settings.preprocessing
    _save(folder / "model.safetensors", _without_prefix(payload, _IMAGE))
    config = {
        "architecture": settings.name,
        "num_classes": 0,
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, preprocessing.height, preprocessing.width],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": [INTENSITY_MEAN] * 3,
            "std": [INTENSITY_STD] * 3,
        },
    }
    write_whole(folder / "config.json", json.dumps(config, indent=1))


def _adapted_weights(payload: Payload, source: Path) -> dict[str, NDArray[Any]]:
    """An adapted text encoder; with its masked-token head, as ``ModernBertForMaskedLM``, where it is a ModernBERT."""
    encoder = _without_prefix(payload, _TEXT)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "modernbert":
        return encoder
    head = _without_prefix(payload, _HEAD)
    tensors = {"decoder.bias": head.pop("bias")} | {f"head.{name}": array for name, array in head.items()}
    return tensors | {f"model.{name}": array for name, array in encoder.items()}


def _copy_configuration(source: Path, folder: Path) -> None:
    """Everything of a text encoder's folder but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        is_weights = file.suffix in (".safetensors", ".bin") or file.name.endswith(".index.json")
        if file.is_file() and not file.name.startswith(".") and not is_weights:
            shutil.copyfile(file, folder / file.name)


def _save(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})  # transformers asks for the format


def _without_prefix(payload: Payload, prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): payload[name] for name in payload if name.startswith(prefix)}


def _text_readme(manifest: Manifest) -> str:
    return f"""# {manifest.run}: text encoder after turn {manifest.turn}

State {manifest.state.digest}, made by {manifest.code}. How it came to be: manifest.json.

    import transformers
    text_encoder = transformers.AutoModel.from_pretrained("text_encoder")

To pretrain with it: copy text_encoder/ to the coordinator and to every site, with nothing added, and name it in their
YAML as `text_encoder`. A derived work of hospital data: not for clinical use.
"""


def _heads_readme(manifest: Manifest) -> str:
    return f"""# {manifest.run}: heads of the task {manifest.settings.task.name} after turn {manifest.turn}

State {manifest.state.digest}, made by {manifest.code}. How it came to be: manifest.json.

    from mammofed_shared.training.exported import load_exported
    model = load_exported(this_folder, ["{manifest.settings.task.name}"], "{manifest.encoder}").model

The tensors alone: `safetensors.torch.load_file("heads.safetensors")`. They belong to the frozen model of that digest,
and to no other. A site that has this folder explains risks with it: `site-client explain --help`. A derived work of
hospital data: not for clinical use.
"""


def _pretrain_readme(manifest: Manifest, task: PretrainSettings) -> str:
    return f"""# {manifest.run}: checkpoint after turn {manifest.turn}

State {manifest.state.digest}, made by {manifest.code}. How it came to be: manifest.json.

    import timm, transformers
    from safetensors.torch import load_file
    image_encoder = timm.create_model("local-dir:image_encoder", pretrained=True)     # {task.image_encoder.name}
    text_encoder = transformers.AutoModel.from_pretrained("text_encoder")
    projections = load_file("projections.safetensors")

Images: {manifest.settings.preprocessing.height} × {manifest.settings.preprocessing.width} (height × width), 8-bit grey,
chest wall left; scaled to 0..1 by the image's own minimum and maximum, then minus {INTENSITY_MEAN}, divided by
{INTENSITY_STD}, three equal channels. Features: `{task.image_encoder.pooling}` pooling of `forward_features`
(`avgmax`: mean, then maximum), times image_projection.weight; texts: the first token, times text_projection.weight;
both scaled to length 1. A run of risk or explanation names a copy of this folder as its `encoder`. A derived
work of hospital data: not for clinical use.
"""
