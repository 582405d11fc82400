"""Features as a task reads them: from the site's store, and where that has none, as the site's YAML says."""

import threading
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.features import FeatureKind
from mammofed_shared.data.feature_store import FeatureStore
from mammofed_shared.data.features import Item, item_key
from mammofed_shared.errors import DataError
from mammofed_shared.evaluation.feature_encoder import FeatureEncoder

Missing = Literal["refuse", "recompute", "zeros"]
"""What an item has whose features are not kept: an error; what the encoder gives for its pixels now; or zeros, for a
probe that only measures time."""


class CachedFeatures:
    """Reads kept features; threads may read at once.

    Args:
        store: None keeps nothing.
        make_encoder: called with the first item that must be computed.
    """

    def __init__(
        self,
        kind: FeatureKind,
        store: FeatureStore | None,
        make_encoder: Callable[[], FeatureEncoder],
        missing: Missing,
    ) -> None:
        self.kind = kind
        self._store = store
        self._make_encoder = make_encoder
        self._missing = missing
        self._encoder: FeatureEncoder | None = None
        self._lock = threading.Lock()

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of an item's features."""
        kept = self._store.row_shape if self._store is not None else None
        return kept or self._loaded_encoder().row_shape

    def read(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Features (items, *row_shape).

        Raises:
            DataError: an item's features were not computed, or its image cannot be read.
        """
        places = self._places(items)
        is_kept = places >= 0
        if self._missing == "refuse" and not is_kept.all():
            raise DataError(
                f"{self.kind.slug} features of {int((~is_kept).sum())} items were not computed: run `site-client "
                "features`"
            )
        out = np.zeros((len(items), *self.row_shape), np.float32)
        if self._store is not None and is_kept.any():
            out[is_kept] = self._store.read(places[is_kept])
        if self._missing == "recompute" and not is_kept.all():
            out[~is_kept] = self._computed([item for item, kept in zip(items, is_kept, strict=True) if not kept])
        return out

    def _places(self, items: Sequence[Item]) -> NDArray[np.int64]:
        if self._store is None:
            return np.full(len(items), -1, np.int64)
        return self._store.places([item_key(item) for item in items])

    def _computed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """As they would have been kept, so that both ways give the same values."""
        encoder = self._loaded_encoder()
        loaded = encoder.load(items)
        with self._lock:
            return encoder.encode(loaded).astype(np.float32)

    def _loaded_encoder(self) -> FeatureEncoder:
        with self._lock:
            if self._encoder is None:
                self._encoder = self._make_encoder()
            return self._encoder
