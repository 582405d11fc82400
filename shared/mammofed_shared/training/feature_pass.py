"""Features once: what a task reads of the frozen encoder and the site has not kept is computed before the task begins.

Every process of a worker group computes its share. A pass that is killed goes on: only what is not kept is computed. A
second visit finds all of it, and opens no image.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from mammofed_shared.config.features import FeatureCacheSettings, FeatureKind, ReadsFeatures
from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.data.batches import loaded_ahead
from mammofed_shared.data.feature_store import FeatureStore, FeatureWriter, bytes_of, kept_bytes
from mammofed_shared.data.features import Item, item_key, items_of
from mammofed_shared.errors import DataError, RefusalCode, VisitFailed
from mammofed_shared.evaluation.feature_encoder import FeatureEncoder, LoadedItems
from mammofed_shared.exam import Exam
from mammofed_shared.files import remove_halves
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.feature_figures import WAYS_OUT, FeatureFigures
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.tasks import code_of

logger = logging.getLogger(__name__)

ITEMS_AT_ONCE = 16
"""Items that one thread loads together."""

MEASURED_LOADS = 4
"""So many times what the device computes at once is measured to predict a pass."""

Report = Callable[[int, int], None]


def features_before(task: TaskSettings, data: SiteData, group: WorkerGroup, report: Callable[[Progress], None]) -> None:
    """Compute what a visit of this task will read; nothing, where the task reads pixels. Every process calls it.

    Raises:
        VisitFailed: as ``ensure_features``.
    """
    if isinstance(task, ReadsFeatures):
        exams = code_of(task).feature_exams(task, data.exams)

        def computed(done: int, total: int) -> None:
            report(Progress(step=done, num_steps=total))

        ensure_features(task.features, data, group, computed, exams)


def ensure_features(
    kind: FeatureKind, data: SiteData, group: WorkerGroup, report: Report, exams: Sequence[Exam] | None = None
) -> None:
    """Compute and keep the features of exams that are not kept yet. Every process of the group calls it.

    Args:
        report: called with the number of items that this process has computed, and of all that it shall.
        exams: whose; None: of all exams of the site.

    Raises:
        VisitFailed: SETTINGS, they would take more than the site's quota and the site does not want to compute them
            anew; OUT_OF_MEMORY, NOT_FINITE, as the encoder says.
        DataError: images cannot be read, or are not those that the tables name; all others were computed.
    """
    store = data.feature_store(kind)
    if store is None:
        return  # nothing is kept here: whoever reads computes
    items = items_of(kind, data.exams if exams is None else exams)
    missing = _missing(items, store)
    if group.rank == 0:
        remove_halves(store.folder)
    group.wait_for_all()  # all have looked before one writes, so that the shares are of one list
    if not missing:
        return
    encoder = FeatureEncoder(data.encoder_folder, kind, group.device)
    found = _figures(kind, encoder.row_shape, len(items), len(missing), store)
    if found.exceeds(data.feature_cache.quota_gb):
        _refuse_or_recompute(found, data.feature_cache)
        return
    if group.rank == 0:
        logger.info("%s features of %d items are computed once", kind.slug, len(missing))
    with FeatureWriter(store, encoder.row_shape, group.rank) as writer:
        num_unreadable = _compute(missing[group.rank :: group.size], encoder, writer, data.loaders, report)
    group.wait_for_all()
    num_unreadable = int(group.sum(num_unreadable))
    if num_unreadable:
        raise DataError(
            f"{num_unreadable} prepared images cannot be read, or are not those that their table names: run "
            "`site-client preprocess` again"
        )


def figures_of(kind: FeatureKind, data: SiteData, group: WorkerGroup, exams: Sequence[Exam]) -> FeatureFigures:
    """What features of exams take; of those that are not kept a few are computed, to measure the time.

    Raises:
        VisitFailed: SETTINGS, the encoder has no such features.
        DataError: as ``ensure_features``.
    """
    store = data.feature_store(kind)
    assert store is not None, "a site has a folder for what can be made again"
    items = items_of(kind, exams)
    missing = _missing(items, store)
    encoder = FeatureEncoder(data.encoder_folder, kind, group.device) if missing or store.row_shape is None else None
    row_shape = store.row_shape if encoder is None else encoder.row_shape
    found = _figures(kind, row_shape or (), len(items), len(missing), store)
    if encoder is None or not missing:
        return found
    return found.model_copy(update={"item_s": _item_s(encoder, missing[: MEASURED_LOADS * encoder.at_once])})


def _item_s(encoder: FeatureEncoder, items: Sequence[Item]) -> float:
    """Seconds an item, without the first touch of the memory."""
    loads = [encoder.load(items[start : start + encoder.at_once]) for start in range(0, len(items), encoder.at_once)]
    encoder.encode(loads[0])
    began_s = time.monotonic()
    for loaded in loads:
        encoder.encode(loaded)
    return (time.monotonic() - began_s) / len(items)


def _figures(
    kind: FeatureKind, row_shape: tuple[int, ...], num_items: int, num_missing: int, store: FeatureStore
) -> FeatureFigures:
    others = {folder: size for folder, size in kept_bytes(store.caches).items() if folder != store.folder}
    return FeatureFigures(
        kind=kind,
        row_shape=row_shape,
        num_items=num_items,
        num_missing=num_missing,
        bytes_all=bytes_of(row_shape, len(store) + num_missing),
        bytes_missing=bytes_of(row_shape, num_missing),
        bytes_others=sum(others.values()),
    )


def _missing(items: Sequence[Item], store: FeatureStore) -> list[Item]:
    places = store.places([item_key(item) for item in items])
    return [item for item, place in zip(items, places.tolist(), strict=True) if place < 0]


def _refuse_or_recompute(found: FeatureFigures, settings: FeatureCacheSettings) -> None:
    words = found.in_words(settings.quota_gb)
    if settings.over_quota == "refuse":
        raise VisitFailed(RefusalCode.SETTINGS, f"{words}. {WAYS_OUT}")
    logger.warning("%s: they are computed anew whenever they are read", words)


def _compute(
    items: Sequence[Item], encoder: FeatureEncoder, writer: FeatureWriter, num_loaders: int, report: Report
) -> int:
    """Compute and keep the features of some items; the number of those that could not be read."""
    num_done, num_unreadable = 0, 0
    for loaded in _loaded(items, encoder, num_loaders):
        if isinstance(loaded, int):
            num_unreadable += loaded
            num_done += loaded
        else:
            for key, row in zip(loaded.keys, encoder.encode(loaded), strict=True):
                writer.add(key, row)
            num_done += len(loaded.keys)
        report(num_done, len(items))
    return num_unreadable


def _loaded(items: Sequence[Item], encoder: FeatureEncoder, num_loaders: int) -> Iterator[LoadedItems | int]:
    """Items with their pixels, read ahead; a number is that of items that cannot be read."""
    batches = [items[start : start + ITEMS_AT_ONCE] for start in range(0, len(items), ITEMS_AT_ONCE)]
    for batch, loaded in zip(
        batches, loaded_ahead([partial(_load, encoder, batch) for batch in batches], num_loaders), strict=True
    ):
        if loaded is not None:
            yield loaded
            continue
        for item in batch:  # one of them: all others are as good as ever
            yield _load(encoder, [item]) or 1


def _load(encoder: FeatureEncoder, items: Sequence[Item]) -> LoadedItems | None:
    try:
        return encoder.load(items)
    except DataError as error:
        logger.debug("%s", error)
        return None
