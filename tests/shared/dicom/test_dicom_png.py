import io

import cv2
import numpy as np
import pytest
from PIL import Image

from dicom_fixtures import breast_pixels
from mammofed_shared.dicom.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (120, 80), (333, 257)])
def test_two_readers_get_every_pixel_back(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    encoded = encode_png(image)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED), image)
    with Image.open(io.BytesIO(encoded)) as opened:
        opened.load()
        assert (opened.mode, opened.size) == ("L", shape[::-1])
        np.testing.assert_array_equal(np.asarray(opened), image)


def test_a_breast_takes_less_room_than_its_pixels() -> None:
    image = breast_pixels(400, 260, highest=255).astype(np.uint8)
    assert len(encode_png(image)) < image.size / 3
