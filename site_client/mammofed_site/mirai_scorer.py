"""MIRAI's risks of one exam. Torch lives here; ``teach`` loads this module by name."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mammofed_shared.config.mirai_teacher import MiraiDescription
from mammofed_shared.dicom.mirai_image import Grey
from mammofed_shared.exam import Laterality, View
from mammofed_shared.models.mirai_weights import load_mirai
from mammofed_shared.report.exam_facts import Teacher
from mammofed_site.torch_device import device_of

_VIEW_NUMBER = {View.CC: 0, View.MLO: 1}
_SIDE_NUMBER = {Laterality.R: 0, Laterality.L: 1}
"""As MIRAI's data sets number them (``onconet/utils/dicom.py``)."""


class MiraiScorer:
    """The model on its device.

    Args:
        views: of the images that each call gets, in their order.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: the weights are no MIRAI, or the device is not there.
    """

    def __init__(
        self,
        weights: Path,
        description: MiraiDescription,
        views: Sequence[tuple[Laterality, View]],
        *,
        device: str,
        threads: int,
    ) -> None:
        self._device = device_of(device)
        torch.set_num_threads(threads)
        self._mean, self._std = description.image_mean, description.image_std
        self._model = load_mirai(
            weights,
            num_heads=description.num_heads,
            pool=description.pool,
            risk_factors=description.risk_factors,
        ).to(self._device)
        numbers = (
            [0] * len(views),
            [_VIEW_NUMBER[view] for _, view in views],
            [_SIDE_NUMBER[side] for side, _ in views],
        )
        self._time_view_side = [torch.tensor([row], device=self._device) for row in numbers]

    @torch.inference_mode()
    def __call__(self, images: Sequence[Grey]) -> Teacher:
        """Risk of 1 to 5 years."""
        # One image after the other: the feature maps of one take a gigabyte.
        vectors = [self._model.features(self._normalised(image)) for image in images]
        logit = self._model.transformer(torch.stack(vectors)[None], *self._time_view_side)
        year1, year2, year3, year4, year5 = self._model.risks(logit)[0].tolist()
        return year1, year2, year3, year4, year5

    def _normalised(self, image: Grey) -> torch.Tensor:
        return (torch.tensor(image, dtype=torch.float32, device=self._device) - self._mean) / self._std
