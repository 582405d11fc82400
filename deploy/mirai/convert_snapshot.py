#!/usr/bin/env python3
"""Turn the published snapshots of MIRAI into one file that `site-client teach` reads. Run it where MIRAI is installed.

A snapshot is a pickle: whoever loads one runs the code in it. mammofed never does. This script does, in an environment
of your own in which MIRAI works (https://github.com/yala/Mirai, https://github.com/reginabarzilaygroup/Mirai), and
copies tensors and a few numbers out of it. It needs Python 3.7 or later, torch and numpy, and nothing of mammofed.

    python convert_snapshot.py --mirai ~/Mirai \\
        --encoder ~/Mirai/snapshots/mgh_mammo_MIRAI_Base_May20_2019.p \\
        --transformer ~/Mirai/snapshots/mgh_mammo_cancer_MIRAI_Transformer_Jan13_2020.p \\
        --calibrator ~/Mirai/snapshots/callibrators/Mirai_pred_rf_callibrator_mar12_2022.p \\
        --output mirai.safetensors

Without --calibrator the risks are those of the bare model. The file also holds what MIRAI itself gives for one small
image; `site-client teach` computes the same and refuses weights that it understands otherwise.
"""

from __future__ import annotations

import argparse
import inspect
import json
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

_NEEDED = (
    "projection_layer.",
    "mask_embedding.",
    "transformer.",
    "pool.",
    "prob_of_failure_layer.hazard_fc.",
    "prob_of_failure_layer.base_hazard_fc.",
)
"""What inference needs of the transformer; the rest served training."""
_POOLS = ("GlobalAvgPool", "GlobalMaxPool", "Simple_AttentionPool")
_CHECK_SIZE = (96, 64)
_YEARS = 5


def main(arguments: list[str] | None = None) -> None:
    """Read the snapshots, write the file, and say what is in it."""
    options = _options(arguments)
    sys.path.insert(0, str(options.mirai))
    calibration = None if options.calibrator is None else _calibration(options.calibrator)
    encoder, transformer = _snapshot(options.encoder), _snapshot(options.transformer)
    tensors, description = _converted(encoder, transformer)
    description.update(
        image_height=options.image_size[1],
        image_width=options.image_size[0],
        image_mean=options.image_mean,
        image_std=options.image_std,
    )
    if calibration is not None:
        tensors["calibration"] = calibration
    tensors.update(_check(encoder, transformer))
    _write_safetensors(options.output, tensors, {"mirai": json.dumps(description)})
    calibrated = "WITHOUT calibration" if calibration is None else "with calibration"
    print(f"{options.output}: {len(tensors)} tensors, {calibrated}; {json.dumps(description)}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirai", type=Path, required=True, help="folder of MIRAI's code, which holds `onconet`")
    parser.add_argument("--encoder", type=Path, required=True, help="snapshot of the image encoder")
    parser.add_argument("--transformer", type=Path, required=True, help="snapshot of the image transformer")
    parser.add_argument("--calibrator", type=Path, help="snapshot of the calibrators, one a year")
    parser.add_argument("--output", type=Path, required=True, help="the safetensors file to write")
    size: Any = {"nargs": 2, "type": int, "metavar": ("WIDTH", "HEIGHT"), "default": (1664, 2048)}
    parser.add_argument("--image-size", help="of the images that the model was trained on", **size)
    parser.add_argument("--image-mean", type=float, default=7047.99, help="of their 16-bit grey values")
    parser.add_argument("--image-std", type=float, default=12005.5, help="of their 16-bit grey values")
    return parser.parse_args(arguments)


def _snapshot(path: Path) -> Any:
    """The module in a snapshot, ready for inference; this runs the code that the pickle names."""
    accepts = inspect.signature(torch.load).parameters
    options = {"weights_only": False} if "weights_only" in accepts else {}
    model: Any = torch.load(str(path), map_location="cpu", **options)
    if isinstance(model, dict):
        model = model["model"]
    if isinstance(model, torch.nn.DataParallel):
        model = model.module
    # As MIRAI's own loader does, which also runs older snapshots by newer code.
    settings = _inner(model).args
    settings.cuda = False
    settings.use_pred_risk_factors_at_test = True
    settings.use_pred_risk_factors_if_unk = False
    settings.use_precomputed_hiddens = False
    settings.use_spatial_transformer = False
    return model.cpu().eval()


def _inner(model: Any) -> Any:
    return getattr(model, "_model", model)


def _converted(encoder: Any, transformer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by the names of the file, and what they alone do not tell."""
    settings = transformer.args
    for setting in ("deep_risk_factor_pool", "pred_both_sides"):
        if getattr(settings, setting, False):
            sys.exit(f"this snapshot was trained with {setting}, which is not the published MIRAI")
    if _inner(encoder).args.pool_name != "GlobalMaxPool":
        sys.exit(f"the encoder pools by {_inner(encoder).args.pool_name}; the published one by GlobalMaxPool")
    pool = settings.pool_name
    if pool not in _POOLS:
        sys.exit(f"the transformer pools by {pool}; known are {', '.join(_POOLS)}")
    tensors = {
        f"image_encoder.{name}": tensor
        for name, tensor in _inner(encoder).state_dict().items()
        if name.startswith(("downsampler.", "layer")) and not name.endswith("num_batches_tracked")
    }
    for name, tensor in transformer.state_dict().items():
        if name.startswith(_NEEDED):
            if name.startswith("pool.attention_fc"):  # without risk factors the pool is no part of theirs
                name = name.replace("pool", "pool.internal_pool", 1)
            tensors[f"transformer.{name}"] = tensor
    description = {
        "version": 1,
        "num_heads": int(settings.num_heads),
        "pool": pool,
        "risk_factors": _risk_factors(settings, tensors),
    }
    return tensors, description


def _risk_factors(settings: Any, tensors: dict[str, Any]) -> dict[str, int]:
    """Size of each risk factor that the model predicts, in the order in which it appends them."""
    if not getattr(settings, "use_risk_factors", False):
        return {}
    if not getattr(settings, "pred_risk_factors", False):
        sys.exit("this snapshot asks for the patient's risk factors; the published MIRAI predicts them from the images")
    keys = settings.risk_factor_keys
    names = keys.split() if isinstance(keys, str) else list(keys)
    return {name: int(tensors[f"transformer.pool.{name}_fc.bias"].shape[0]) for name in names}


def _calibration(path: Path) -> Any:
    """(years, 4): slope and offset of the base classifier and of its sigmoid, proved on the calibrators themselves."""
    with path.open("rb") as file:
        calibrators = pickle.load(file)
    rows = []
    for year in range(_YEARS):
        row = _coefficients(calibrators[year])
        for risk in (0.001, 0.01, 0.05, 0.2, 0.6):
            inner = row[0] * risk + row[1]
            ours = 1 / (1 + np.exp(row[2] * inner + row[3]))
            theirs = np.asarray(calibrators[year].predict_proba(np.array([[risk]]))).flatten()[1]
            if not np.isclose(ours, theirs, rtol=1e-6, atol=1e-9):
                sys.exit(f"the calibrator of year {year + 1} gives {theirs} for {risk}, and its coefficients {ours}")
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def _coefficients(calibrator: Any) -> list[float]:
    if hasattr(calibrator, "calibrator_slope"):  # onconet.models.calibrator.MiraiCalibrator
        names = ("base_estimator_slope", "base_estimator_offset", "calibrator_slope", "calibrator_offset")
        return [float(np.asarray(getattr(calibrator, name)).flatten()[0]) for name in names]
    # sklearn.calibration.CalibratedClassifierCV; its attributes were renamed over the years.
    (fitted,) = calibrator.calibrated_classifiers_
    base = getattr(fitted, "estimator", None) or fitted.base_estimator
    (sigmoid,) = getattr(fitted, "calibrators", None) or fitted.calibrators_
    values = (base.coef_, base.intercept_, sigmoid.a_, sigmoid.b_)
    return [float(np.asarray(value).flatten()[0]) for value in values]


def _check(encoder: Any, transformer: Any) -> dict[str, Any]:
    """One small image, the vector that MIRAI's encoder makes of it, and the logits of an exam of its multiples."""
    height, width = _CHECK_SIZE
    image = torch.sin(torch.arange(height * width, dtype=torch.float32) * 0.37).reshape(height, width)
    with torch.no_grad():
        _, hidden, _ = encoder(image.expand(1, 3, height, width).contiguous(), None, None)
        features = hidden[0, : transformer.projection_layer.in_features].clone()
        exam = torch.stack([features * factor for factor in (0.5, 1.0, 1.5, 2.0)]).unsqueeze(0)
        places = {
            "time_seq": torch.zeros(1, 4, dtype=torch.long),
            "view_seq": torch.tensor([[0, 1, 0, 1]]),
            "side_seq": torch.tensor([[0, 0, 1, 1]]),
        }
        logit, _, _ = transformer(exam, None, places)
    return {"check.image": image, "check.features": features, "check.logit": logit}


def _write_safetensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """The format is a length of 8 bytes, a header in JSON, and the bytes of the tensors one after the other."""
    header: dict[str, Any] = {"__metadata__": metadata}
    arrays, end = [], 0
    for name in sorted(tensors):
        is_double = tensors[name].dtype == torch.float64
        array = np.ascontiguousarray(tensors[name].detach().numpy().astype("<f8" if is_double else "<f4"))
        kind = "F64" if is_double else "F32"
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        arrays.append(array)
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays:
            file.write(array.tobytes())


if __name__ == "__main__":
    main()
