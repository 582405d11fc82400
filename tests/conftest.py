"""Imported before any test module."""

from typing import TYPE_CHECKING

import pytest

import mammofed_shared  # noqa: F401  (tls13 must come before the first import of grpc or flwr)

if TYPE_CHECKING:
    from whole_run import Hospitals


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> "Hospitals":
    """Two prepared hospitals and the runs that they could take part in; made once."""
    from whole_run import Hospitals  # brings half of the product, which most tests do not need

    return Hospitals(tmp_path_factory.mktemp("hospitals"))
