"""Sites whose kept patch features are sums of a few planted directions: what a sparse autoencoder should find."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mammofed_shared.config.features import PatchFeatures
from mammofed_shared.data.feature_store import FeatureWriter
from mammofed_shared.data.features import item_key
from mammofed_shared.exam import Exam, Image, Laterality, Split, View
from mammofed_shared.training.site_data import SiteData

NUM_CHANNELS = 16
NUM_PATCHES = 8
PLANTED = 24
"""Directions; each patch is a sum of three."""
VIEWS = ((Laterality.L, View.CC), (Laterality.R, View.MLO))


def planted_exams(num: int, split: Split = Split.TRAIN, dataset: str = "one") -> list[Exam]:
    """Exams of as many patients, with two images each of which there is only a digest."""
    return [_exam(f"{dataset}-{split}-{number:03d}", split, dataset) for number in range(num)]


def planted_site(folder: Path, encoder: Path, exams: Sequence[Exam], *, least_cell: int = 2) -> SiteData:
    """A site that keeps patches of these exams' images."""
    data = SiteData(exams, ("one", "two"), None, least_cell, caches=folder, encoder=encoder)
    random = np.random.default_rng(5)
    directions = random.standard_normal((PLANTED, NUM_CHANNELS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    store = data.feature_store(PatchFeatures(num_patches=NUM_PATCHES))
    assert store is not None
    with FeatureWriter(store, (NUM_PATCHES, NUM_CHANNELS)) as writer:
        for exam in exams:
            for image in exam.images:
                strength = random.uniform(1, 2, (NUM_PATCHES, PLANTED))
                ranks = random.random((NUM_PATCHES, PLANTED)).argsort(axis=1).argsort(axis=1)
                patches = (strength * (ranks < 3)) @ directions + 0.5
                writer.add(item_key((image,)), patches.astype(np.float16))
    return data


def _exam(name: str, split: Split, dataset: str) -> Exam:
    images = []
    for laterality, view in VIEWS:
        digest = hashlib.sha256(f"{name}{laterality}{view}".encode()).hexdigest()
        images.append(Image(f"{name}{laterality}{view}", laterality, view, Path("nowhere.png"), "other", digest))
    return Exam(name, name, dataset, split, None, tuple(images))
