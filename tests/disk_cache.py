"""One disk cache for all processes that the tests start: a model is opened by a helper once, not once a process."""

import atexit
import shutil
import tempfile
from pathlib import Path

DISK_CACHE = Path(tempfile.mkdtemp(prefix="loadonce-tests-"))
atexit.register(shutil.rmtree, DISK_CACHE, ignore_errors=True)
