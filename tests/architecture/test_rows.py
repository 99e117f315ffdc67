"""The page of rows claims no test that is not there."""

from tests.architecture.rows import claimed, collected


def test_every_row_that_the_docs_claim_is_borne_by_the_test_they_name() -> None:
    found = collected()
    untrue = [(row, test) for row, tests in claimed().items() for test in tests if f"tests/{test}" not in found.get(row, [])]
    assert untrue == []
