"""`import schemas` needs numpy and msgpack, and nothing else."""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import schemas

PROGRAM = """
import sys

import schemas
from schemas import ContentType, Job, JobClient, Limits, OutcomeReader
from schemas.job import job_record

for absent in ("tensorflow", "keras", "kafka", "pydantic", "ml_dtypes"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{absent} is here, so this environment proves nothing")

import numpy as np

record = job_record(Job("digits", np.zeros((2, 3), np.float32)), ContentType.MSGPACK, 0)
request = schemas.decode_request(record.value, ContentType.MSGPACK, Limits())
assert request.inputs[0].array.shape == (2, 3)

for opened in (JobClient("localhost:9"), OutcomeReader("localhost:9")):
    try:
        opened.__enter__()
    except ImportError as error:
        assert "pip install" in str(error), error
    else:
        sys.exit("a client without kafka-python")
print("light")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with links to `schemas` and to what numpy and msgpack installed, alone."""
    for name in ("numpy", "msgpack"):
        installed = distribution(name)
        tops = {file.parts[0] for file in installed.files or () if not file.parts[0].startswith("..")}
        for top in tops - {"__pycache__"}:
            (tmp_path / top).symlink_to(Path(str(installed.locate_file(top))))
    (tmp_path / "schemas").symlink_to(Path(schemas.__file__).parent)
    return tmp_path


def test_schemas_needs_neither_tensorflow_nor_kafka(site: Path) -> None:
    # -I: no environment, no user site, no current folder; -S: no site-packages at all.
    code = f"import sys; sys.path.append({str(site)!r})\n{PROGRAM}"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (0, "light\n"), ended.stderr
