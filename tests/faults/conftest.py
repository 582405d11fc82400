"""`--part=1/2`: plays every second test, so that two processes share the matrix."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known when tests/faults is named on the command line."""
    parser.addoption("--part", default="1/1", help="which part of the tests, of how many")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the other parts' tests out."""
    part, _, parts = str(config.getoption("--part", default="1/1")).partition("/")
    items[:] = [item for number, item in enumerate(items) if number % int(parts) == int(part) - 1 or parts == "1"]
