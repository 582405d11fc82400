"""What is left of a frozen model's findings after reconstruction, in real small networks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.tasks import TASKS
from mammofed_shared.evaluation.discrimination import Labelled
from mammofed_shared.evaluation.fidelity import fidelity_numbers, original_and_reconstructed, reconstructed_maps
from mammofed_shared.evaluation.frozen_encoder import FrozenDualEncoder, load_frozen_dual_encoder
from mammofed_shared.evaluation.sparse_codes import CodeSums
from mammofed_shared.evaluation.statistics import RESAMPLES, auroc
from mammofed_shared.losses.sparsity import explained_variance
from mammofed_shared.models.nested_codes import keep_largest
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder


@pytest.fixture(scope="module", params=["avg", "avgmax"])
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FrozenDualEncoder:
    folder = write_frozen_encoder(tmp_path_factory.mktemp("encoder"), pooling=request.param)
    return load_frozen_dual_encoder(folder)


def greys() -> Tensor:
    random = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (3, 64, 40), generator=random, dtype=torch.uint8)


def lossless(channels: int) -> SparseAutoencoder:
    """An autoencoder whose neurons are every channel and its opposite: its whole code gives everything back."""
    model = SparseAutoencoder(channels, 2 * channels, (4, 2 * channels))
    both = torch.cat([torch.eye(channels), -torch.eye(channels)])
    with torch.no_grad():
        model.encoder.copy_(both)
        model.decoder.copy_(both)
    return model


@torch.no_grad()
def test_without_loss_the_vectors_are_the_frozen_models_own(frozen: FrozenDualEncoder) -> None:
    channels = frozen.image_encoder.feature_map(greys()).shape[1]
    embed = original_and_reconstructed(frozen, lossless(channels), (4, 2 * channels))

    original, short, whole = embed(greys()).chunk(3, dim=1)

    torch.testing.assert_close(original, frozen.embed_images(greys()))
    torch.testing.assert_close(whole, original, rtol=1e-4, atol=1e-5)
    assert float((short * original).sum(dim=1).max()) < 0.999
    torch.testing.assert_close(short.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_a_map_is_reconstructed_cell_by_cell() -> None:
    torch.manual_seed(0)
    model = SparseAutoencoder(5, 40, (3, 40))
    maps = torch.randn(5, 4, 3)

    [given] = reconstructed_maps(model, maps, (3,))

    cell = model.decode(keep_largest(model.encode(maps[None, :, 2, 1]), 3))[0]
    torch.testing.assert_close(given[:, 2, 1], cell)
    assert given.shape == maps.shape


def labelled(scores: list[float]) -> Labelled:
    found = Labelled()
    for number, score in enumerate(scores):
        found.add(number % 2 == 0, score, f"p{number}")
    return found


def test_the_change_of_the_auroc_is_told_with_its_interval() -> None:
    original = labelled([0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4])
    worse = labelled([0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.1, 0.85])

    numbers = fidelity_numbers("mass", original, [("k64", worse), ("k128", original)], least_cell=4)

    assert numbers["auroc/mass"] == 1 and numbers["num_positive/mass"] == 4
    assert numbers["auroc_change/mass/k64"] == pytest.approx(10.5 / 16 - 1)
    assert numbers["auroc_change_low/mass/k64"] < numbers["auroc_change/mass/k64"] < 0
    assert numbers["auroc_change_high/mass/k64"] <= 0
    assert numbers["auroc_change/mass/k128"] == numbers["auroc_change_low/mass/k128"] == 0
    allowed = TASKS["sae"].evaluate_metrics
    assert {name.replace("mass", "*").replace("k64", "k#").replace("k128", "k#") for name in numbers} <= allowed


def test_each_resample_draws_the_same_patients_before_and_after() -> None:
    random = np.random.default_rng(1)
    original, changed = Labelled(), Labelled()
    for number, score in enumerate(random.normal(size=40)):
        for one, moved in ((original, 0.0), (changed, random.normal())):
            one.add(number % 3 == 0, round(float(score) + moved, 1), f"p{number // 2:02d}")

    numbers = fidelity_numbers("mass", original, [("k64", changed)], least_cell=2)

    names, changes = sorted(set(original.patients)), []
    for drawn in np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names))):
        rows = [row for number in drawn for row, own in enumerate(original.patients) if own == names[number]]
        was, now = (
            auroc([one.labels[row] for row in rows], [one.scores[row] for row in rows]) or 0.0
            for one in (original, changed)
        )
        changes.append(now - was)
    told = [numbers[f"auroc_change_{end}/mass/k64"] for end in ("low", "high")]
    assert told == pytest.approx(np.percentile(changes, [2.5, 97.5]).tolist(), abs=1e-12)


def test_of_too_few_patients_only_that_is_told() -> None:
    original = labelled([0.9, 0.1, 0.8, 0.2])

    assert fidelity_numbers("mass", original, [("k64", original)], least_cell=3) == {"suppressed/mass": 1.0}
    assert fidelity_numbers("mass", Labelled(), [("k64", Labelled())], least_cell=0) == {"suppressed/mass": 1.0}


def test_sums_over_batches_are_the_figures_of_all_patches() -> None:
    torch.manual_seed(0)
    model = SparseAutoencoder(6, 48, (2, 48))
    features = torch.randn(50, 6) + 3
    sums = CodeSums(model)
    assert sums.numbers(["k2", "k48"]) == {}

    parts = [sums.add(part) for part in features.split(7)]
    numbers = sums.numbers(["k2", "k48"])

    errors = model.errors(features)
    power, total = features.double().square().sum(), features.double().sum(dim=0)
    explained = explained_variance(errors.double().sum(dim=0), power, total, 50)
    assert [numbers[f"explained_variance/k{level}"] for level in (2, 48)] == pytest.approx(explained.tolist())
    fired = [(keep_largest(model.encode(features), level) > 0).any(dim=0).double().mean() for level in (2, 48)]
    assert [numbers[f"dead_share/k{level}"] for level in (2, 48)] == pytest.approx(
        [1 - float(share) for share in fired]
    )
    assert numbers["dead_share/k2"] > numbers["dead_share/k48"]
    torch.testing.assert_close(torch.cat([error for error, _, _ in parts]), errors.mean(dim=1))
    torch.testing.assert_close(torch.cat([total for _, total, _ in parts]), model.encode(features).sum(dim=1))
