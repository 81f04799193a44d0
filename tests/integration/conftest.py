"""What the tests' runs compile is kept for all of them: many a program is the same in several modules."""

import pytest
import tiny_run


@pytest.fixture(scope="session", autouse=True)
def _compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny_run.folder_of_compiled = tmp_path_factory.mktemp("session")
