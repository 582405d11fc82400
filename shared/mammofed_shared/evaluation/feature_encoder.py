"""From prepared images to features of the frozen encoder: what is computed once, and never in training.

Always in fp32 (TF32 on GPUs that have it): what is kept in fp16 has 11 bits, more than bf16 would compute. On a CPU
images are encoded one by one, which is as fast there, so that no bit of a feature hangs on which others are encoded
with it, nor on where a pass was killed.

Shapes: N items, K images of an item, H rows, W columns of an image; C channels, h rows, w columns of the map.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.config.features import AsymmetryFeatures, FeatureKind, PatchFeatures
from mammofed_shared.config.frozen_encoder import read_encoder
from mammofed_shared.data.features import Item, item_key
from mammofed_shared.data.image_text import stack_greys
from mammofed_shared.errors import ConfigurationError, DataError, RefusalCode, VisitFailed
from mammofed_shared.evaluation.embed import encoded
from mammofed_shared.evaluation.frozen_encoder import load_frozen_image_encoder
from mammofed_shared.exam import Image
from mammofed_shared.models.asymmirai import pooled_difference

GPU_ITEMS_AT_ONCE = 16
_LARGEST = float(torch.finfo(torch.float16).max)


@dataclass(frozen=True, slots=True)
class LoadedItems:
    """Pixels of some items, read ahead by a thread."""

    keys: list[bytes]
    greys: NDArray[np.uint8]
    """(N, K, H, W)."""
    cells: NDArray[np.int64]
    """(N, cells): of ``patches`` the numbers of the cells to take, row by row of the map; else (N, 0)."""


class FeatureEncoder:
    """The frozen image encoder and one kind of features.

    Args:
        folder: of the frozen model.

    Raises:
        VisitFailed: SETTINGS, the folder is no frozen model, or the window is larger than its map.
    """

    def __init__(self, folder: Path, kind: FeatureKind, device: torch.device) -> None:
        self.kind = kind
        self._device = device
        try:
            self._encoder = load_frozen_image_encoder(folder).to(device)
            images = read_encoder(folder).preprocessing
        except ConfigurationError as error:
            raise VisitFailed(RefusalCode.SETTINGS, str(error)) from error
        self._size = (images.height, images.width)
        with torch.no_grad():
            blank = torch.zeros((1, *self._size), dtype=torch.uint8, device=device)
            self.map_shape = tuple(self._encoder.feature_map(blank).shape[1:])
        self.row_shape = row_shape_of(kind, self.map_shape, self._encoder.num_features)
        self.at_once = GPU_ITEMS_AT_ONCE if device.type == "cuda" else 1

    def load(self, items: Sequence[Item]) -> LoadedItems:
        """The pixels of some items; for a thread to call.

        Raises:
            DataError: an image cannot be read, is not the one that its table names, or has another size.
        """
        keys = [item_key(item) for item in items]
        greys = stack_greys([_verified_grey(image) for item in items for image in item])
        if greys.shape[1:] != self._size:
            raise DataError(
                f"prepared images: expected {self._size}, as the frozen model was trained on, found {greys.shape[1:]}"
            )
        greys_NKHW = greys.reshape(len(items), -1, *greys.shape[1:])
        kind = self.kind
        cells = np.zeros((len(items), 0), np.int64)
        if isinstance(kind, PatchFeatures):
            drawn = [
                drawn_cells(grey_KHW[0], self.map_shape[1:], kind.num_patches, key)
                for grey_KHW, key in zip(greys_NKHW, keys, strict=True)
            ]
            cells = np.stack(drawn)
        return LoadedItems(keys, greys_NKHW, cells)

    def encode(self, loaded: LoadedItems) -> NDArray[np.float16]:
        """Features (N, *row_shape) of loaded items.

        Raises:
            VisitFailed: OUT_OF_MEMORY, with one item; NOT_FINITE, a feature is not finite in fp16.
        """
        inputs = torch.from_numpy(loaded.greys), torch.from_numpy(loaded.cells)
        # Whoever reads may stand in a run's autocast.
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            rows, self.at_once = encoded(self._rows, inputs, self._device, self.at_once)
        if not bool((rows.abs() <= _LARGEST).all()):
            raise VisitFailed(RefusalCode.NOT_FINITE, "the frozen model gives features that fp16 cannot hold")
        return rows.half().numpy()

    def _rows(self, greys_NKHW: Tensor, cells_NP: Tensor) -> Tensor:
        kind = self.kind
        if kind.kind == "pooled":
            pooled_NF: Tensor = self._encoder(greys_NKHW[:, 0])
            return pooled_NF
        if isinstance(kind, AsymmetryFeatures):
            right_NChw, left_NChw = (self._encoder.feature_map(greys_NKHW[:, side]) for side in (0, 1))
            return pooled_difference(right_NChw, left_NChw, kind.window, kind.stride)
        maps_NChw = self._encoder.feature_map(greys_NKHW[:, 0])
        if kind.kind == "maps":
            return maps_NChw
        of_cells_NCP = maps_NChw.flatten(2).gather(2, cells_NP[:, None].expand(-1, maps_NChw.shape[1], -1))
        return of_cells_NCP.transpose(1, 2)


def row_shape_of(kind: FeatureKind, map_shape: Sequence[int], num_features: int) -> tuple[int, ...]:
    """Shape of an item's features.

    Args:
        map_shape: (C, h, w) of the encoder for images of this size.
        num_features: of the pooled vector.

    Raises:
        VisitFailed: SETTINGS, the window is larger than the map.
    """
    channels, *size = map_shape
    if kind.kind == "pooled":
        return (num_features,)
    if isinstance(kind, PatchFeatures):
        return (kind.num_patches, channels)
    if isinstance(kind, AsymmetryFeatures):
        if kind.window[0] > size[0] or kind.window[1] > size[1]:
            raise VisitFailed(
                RefusalCode.SETTINGS,
                f"the window of asymmetry has {kind.window[0]} × {kind.window[1]} cells, the encoder's map {size[0]} × "
                f"{size[1]}: ask the lead for a smaller one",
            )
        size = [(size[axis] - kind.window[axis]) // kind.stride[axis] + 1 for axis in (0, 1)]
    return (channels, *size)


def drawn_cells(grey_HW: NDArray[np.uint8], map_size: Sequence[int], count: int, key: bytes) -> NDArray[np.int64]:
    """Cells of the map to take, drawn by the image's own key among those that show breast: any pixel that is not 0.

    Without repetition, as far as there are enough of them; an image that is all 0 counts as breast.

    Args:
        map_size: (rows, columns).
    """
    rows = np.arange(map_size[0]) * grey_HW.shape[0] // map_size[0]
    columns = np.arange(map_size[1]) * grey_HW.shape[1] // map_size[1]
    brightest = np.maximum.reduceat(np.maximum.reduceat(grey_HW, rows, axis=0), columns, axis=1)
    cells = np.flatnonzero(brightest) if brightest.any() else np.arange(brightest.size)
    random = np.random.default_rng(list(key))
    return random.choice(cells, count, replace=len(cells) < count).astype(np.int64)


def _verified_grey(image: Image) -> NDArray[np.uint8]:
    """The pixels (H, W) that the tables name: what is kept under a digest must be of it."""
    try:
        content = image.path.read_bytes()
    except OSError:
        content = b""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) if content else None
    if pixels is None or hashlib.sha256(content).hexdigest() != image.png_sha256:
        raise DataError("a prepared image cannot be read, or is not the one that its table names")
    return np.asarray(pixels, np.uint8)
