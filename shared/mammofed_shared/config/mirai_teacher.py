"""What a file of MIRAI's weights says of itself, as ``deploy/mirai/convert_snapshot.py`` writes it. Torch-free."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from mammofed_shared.config.base import Settings
from mammofed_shared.errors import ConfigurationError

METADATA_KEY = "mirai"
"""In the header of the safetensors file; its value is the JSON of ``MiraiDescription``."""

CALIBRATION = "calibration"
"""The tensor of the calibration's coefficients; a file may lack it."""


class MiraiDescription(Settings):
    """What the tensors alone do not tell of a MIRAI."""

    version: Literal[1]
    """Of this description."""
    image_height: int = Field(ge=1)
    image_width: int = Field(ge=1)
    image_mean: float
    image_std: float = Field(gt=0)
    """Of grey values from 0 to 65535."""
    num_heads: int = Field(ge=1)
    pool: Literal["GlobalAvgPool", "GlobalMaxPool", "Simple_AttentionPool"]
    """Over the images of an exam."""
    risk_factors: dict[str, int]
    """Risk factors that the model predicts and uses, in its order, and the size of each."""


def is_calibrated(path: Path) -> bool:
    """Whether a file that ``read_description`` has accepted holds the coefficients of MIRAI's calibration."""
    with safe_open(path, framework="numpy") as file:
        return CALIBRATION in file.keys()  # noqa: SIM118  a file of safetensors is no mapping


def read_description(path: Path) -> MiraiDescription:
    """The description in the header of a file of weights; no tensor is read, and nothing is ever unpickled.

    Raises:
        ConfigurationError: the file is not there, or not one that the converter has written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        return MiraiDescription.model_validate_json(metadata[METADATA_KEY])
    except OSError as error:
        raise ConfigurationError(f"--weights: {path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValidationError) as error:
        raise ConfigurationError(
            f"--weights: {path} is not a file that deploy/mirai/convert_snapshot.py has written. Run it where MIRAI is "
            "installed: snapshots are pickles, and nothing is unpickled here (docs/risk.md)"
        ) from error
