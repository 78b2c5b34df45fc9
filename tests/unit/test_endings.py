"""A test that cannot be interrupted ends with its worker, is counted as failed, and holds up nothing."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HANGS = {
    "in a call into C": """
        def test_hangs():
            mutex = ctypes.create_string_buffer(128)
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(mutex)  # no signal ends the second one
    """,
    "in the teardown of a failed test": """
        @pytest.fixture
        def held():
            yield
            threading.Event().wait(600)

        def test_hangs(held):
            assert False
    """,
}


@pytest.mark.parametrize("where", HANGS)
def test_nothing_holds_up_a_run(tmp_path: Path, where: str) -> None:
    (tmp_path / "conftest.py").write_text(
        "pytest_plugins = ['tests.endings']\n"
        "def pytest_configure():\n    from tests import endings\n    endings.GRACE_S = 2\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import ctypes, threading\nimport pytest\n"
        + textwrap.dedent(HANGS[where])
        + "def test_goes_on():\n    assert True\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-n1", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "timeout=3"]
    ended = subprocess.run(
        [*command, f"--rootdir={tmp_path}", "-o", f"pythonpath={root}", str(tmp_path)],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "1 passed" in said, said
    assert "test_hangs" in said, said
    assert "most recent call first" in ended.stderr, said
    assert said.index("FAILED in") < said.index("FAILURES"), said
