"""The image encoder: normalisation, pooling, registered small CNN, checkpointing, batch normalisation."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from mammofed_shared.models.image_encoder import INTENSITY_MEAN, INTENSITY_STD, ImageEncoder, normalise

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "c_normalise.json").read_text())


def greys(seed: int = 0, count: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 48, 32), generator=random, dtype=torch.uint8)


def test_normalisation_equals_the_released_code() -> None:
    # The golden image has three channels, scaled together: one row of ours holds them all.
    image = (np.random.default_rng(8).random((5, 4, 3)) * 255).astype(np.uint8)
    expected = np.array(GOLDEN["out"], np.float32)
    assert expected.shape == image.shape

    found = normalise(torch.from_numpy(image.reshape(1, 5, 12)))

    np.testing.assert_allclose(found.numpy().reshape(5, 4, 3), expected, rtol=1e-6, atol=1e-6)


def test_a_blank_image_becomes_finite() -> None:
    found = normalise(torch.full((1, 4, 4), 7, dtype=torch.uint8))

    assert torch.allclose(found, torch.tensor(-INTENSITY_MEAN / INTENSITY_STD))


def test_small_cnn_is_a_timm_model_of_147_thousand_parameters() -> None:
    model = timm.create_model("mammofed_small_cnn", num_classes=0)

    assert len([m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]) == 5
    assert sum(parameter.numel() for parameter in model.parameters()) == 148_464
    with pytest.raises(ValueError, match="no pretrained weights"):
        timm.create_model("mammofed_small_cnn", pretrained=True)


def test_avgmax_is_the_mean_and_then_the_maximum() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder("mammofed_small_cnn", pooling="avgmax").eval()
    with torch.no_grad():
        vectors, features = encoder(greys()), encoder.feature_map(greys())

    assert vectors.shape == (3, encoder.num_features) == (3, 160)
    assert torch.equal(vectors[:, :80], features.mean(dim=(2, 3)))
    assert torch.equal(vectors[:, 80:], features.amax(dim=(2, 3)))


@pytest.mark.parametrize("name", ["mammofed_small_cnn", "tf_efficientnetv2_b0"])
def test_checkpointing_changes_neither_gradients_nor_running_statistics(name: str) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = ImageEncoder(name, activation_checkpointing=checkpointing).train()
        encoder(greys()).square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in encoder.parameters()]
        found.append((gradients, dict(encoder.named_buffers())))

    (plain, plain_buffers), (checkpointed, checkpointed_buffers) = found
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))
    assert plain_buffers.keys() == checkpointed_buffers.keys()
    assert any(name.endswith("num_batches_tracked") for name in plain_buffers)
    for name, buffer in plain_buffers.items():
        assert torch.equal(buffer, checkpointed_buffers[name]), name


def test_frozen_batch_norm_never_moves_and_local_does() -> None:
    for batch_norm, moves in (("local", True), ("frozen", False)):
        torch.manual_seed(0)
        encoder = ImageEncoder("mammofed_small_cnn", batch_norm=batch_norm).train()
        before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
        encoder(greys()).sum().backward()

        moved = any(not torch.equal(before[name], buffer) for name, buffer in encoder.named_buffers())
        assert moved is moves
        assert encoder.training


def test_compiling_changes_no_name_of_the_state() -> None:
    encoder = ImageEncoder("mammofed_small_cnn")
    names = list(encoder.state_dict())

    encoder.compile_encoder()

    assert list(encoder.state_dict()) == names
