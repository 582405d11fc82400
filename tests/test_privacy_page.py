"""docs/privacy.md says the numbers of today's accountants."""

from privacy_tables import BEGIN, PAGE, page_with, tables


def test_the_tables_of_epsilon_are_those_of_the_accountants() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert BEGIN in page
    assert page_with(tables(), page) == page, "run tests/privacy_tables.py"
