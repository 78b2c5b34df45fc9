"""Files that are out to harm, each a real one: refused, and this process goes on serving."""

import os
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from consumer.models.backend import load_keras, load_tensorflow
from consumer.models.errors import (
    LoadError,
    PassingLoadError,
    PermanentLoadError,
    StaleError,
    TookTooLongError,
    TooLargeError,
)
from consumer.models.opening import Opener, OpenOptions
from consumer.models.store import locate
from tests import custom_layers
from tests import models_zoo as zoo

NEVER = threading.Event()
WAIT_S = 120
MAX_BYTES = 64 << 20
HUGE = 25_000_000_000
"""FP32 elements: 100 GB."""


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    """Little memory, little time."""
    opener = Opener(
        OpenOptions(frozenset(), MAX_BYTES, load_timeout_s=30), tmp_path_factory.mktemp("disk-cache"), 1 << 30
    )
    yield opener
    opener.close(WAIT_S)


@pytest.fixture(scope="module", autouse=True)
def served(bounded: Opener, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """Calls a model that was there before all the others."""
    located = locate(zoo.put(zoo.sequential(), tmp_path_factory.mktemp("good"), "m", 1, "savedmodel"), "m", 1)
    assert located is not None
    good = bounded.open(located, NEVER)

    def serves() -> None:
        (answer,) = good.predict({"pair": np.array([[1, 2]], np.float32)}).values()
        assert answer.tolist() == [[6]]

    yield serves
    good.close()


@pytest.fixture(autouse=True)
def goes_on(served: Callable[[], None]) -> Iterator[None]:
    yield
    served()


def refused(opener: Opener, folder: Path, kind: type[LoadError] = PermanentLoadError) -> str:
    located = locate(folder, "m", 1)
    assert located is not None
    with pytest.raises(LoadError) as caught:
        opener.open(located, NEVER)
    assert type(caught.value) is kind, caught.value
    message = str(caught.value)
    assert "\n" not in message
    assert "/" not in message
    return message


def saved(tmp_path: Path, function: Callable[[Any], Any]) -> Path:
    """A SavedModel of [rows] FP32 `x` -> `y`."""
    tf = load_tensorflow()
    x = tf.TensorSpec((None,), tf.float32, "x")
    return zoo.put_module(tmp_path / "m" / "1", lambda x: {"y": function(x)}, x=x)


# what is no file of the version ------------------------------------------------------------------------------------


def test_a_symbolic_link_out_of_the_store(bounded: Opener, tmp_path: Path) -> None:
    zoo.put(zoo.sequential(), tmp_path / "elsewhere", "m", 1, "keras")
    folder = tmp_path / "store" / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.keras").symlink_to(tmp_path / "elsewhere" / "m" / "1" / "model.keras")
    assert "leads out of the model store" in refused(bounded, folder)


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_neither_file_nor_folder(bounded: Opener, tmp_path: Path, kind: str) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "savedmodel")
    path = folder / "assets" / "x"
    path.parent.mkdir(exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(path))
    else:
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: it never ends
        except PermissionError:
            pytest.skip("only root can make a device")
    assert "neither a file nor a folder" in refused(bounded, folder)


def test_names_that_no_file_should_have(bounded: Opener, tmp_path: Path) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "savedmodel")
    deep = folder / "assets" / "/".join(["d" * 200] * 6)
    deep.mkdir(parents=True)
    (deep / "x").touch()
    assert "longer than" in refused(bounded, folder)


# archives ----------------------------------------------------------------------------------------------------------


def keras_with(folder: Path, **entries: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return folder


def test_a_zip_bomb(bounded: Opener, tmp_path: Path) -> None:
    folder = keras_with(tmp_path / "m" / "1", **{"config.json": b"{}", "assets": bytes(200_000_000)})
    assert (folder / "model.keras").stat().st_size < 1_000_000
    assert "unpacked it has" in refused(bounded, folder, TooLargeError)


def test_an_archive_that_states_a_huge_size(bounded: Opener, tmp_path: Path) -> None:
    folder = keras_with(tmp_path / "m" / "1", **{"config.json": b"{}", "assets": b"x"})
    data = bytearray((folder / "model.keras").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    (folder / "model.keras").write_bytes(data)
    assert "unpacked it has" in refused(bounded, folder, TooLargeError)


def test_an_archive_that_states_less_than_it_holds(bounded: Opener, tmp_path: Path) -> None:
    folder = keras_with(tmp_path / "m" / "1", **{"model.weights.h5": bytes(200_000_000)})
    data = bytearray((folder / "model.keras").read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    (folder / "model.keras").write_bytes(data)
    refused(bounded, folder)


@pytest.mark.parametrize("name", ["../escape", "assets/../../escape", "/tmp/escape"])
def test_an_archive_whose_names_lead_out(bounded: Opener, tmp_path: Path, name: str) -> None:
    folder = keras_with(tmp_path / "m" / "1", **{"config.json": b"{}", name: b"x"})
    assert "leads out of it" in refused(bounded, folder)


def test_an_archive_of_over_long_names(bounded: Opener, tmp_path: Path) -> None:
    folder = keras_with(tmp_path / "m" / "1", **{"config.json": b"{}", "assets/" + "x" * 256: b"x"})
    assert "longer than 255 bytes" in refused(bounded, folder)


def test_weights_that_pickle(bounded: Opener, tmp_path: Path) -> None:
    folder = keras_with(tmp_path / "m" / "1", **{"config.json": b"{}", "model.weights.npz": b"x"})
    assert ".npz" in refused(bounded, folder)


# HDF5 --------------------------------------------------------------------------------------------------------------


def huge_weights(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset("huge", shape=(HUGE,), dtype="f4", chunks=(1 << 20,), compression="gzip")
        file["huge"][:10] = 1
    assert path.stat().st_size < 1_000_000


def test_an_h5_file_of_100_gb_in_a_few_kb(bounded: Opener, tmp_path: Path) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "h5")
    huge_weights(folder / "model.h5")
    assert "its datasets have 100000" in refused(bounded, folder, TooLargeError)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_keras_file_whose_weights_are_100_gb(bounded: Opener, tmp_path: Path, compression: int) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras")
    with zipfile.ZipFile(folder / "model.keras") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "weights.h5").write_bytes(entries["model.weights.h5"])
    huge_weights(tmp_path / "weights.h5")
    entries["model.weights.h5"] = (tmp_path / "weights.h5").read_bytes()
    with zipfile.ZipFile(folder / "model.keras", "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    assert "its datasets have 100000" in refused(bounded, folder, TooLargeError)


def external(file: h5py.File, path: Path) -> None:
    file.create_dataset("x", (4,), "f4", external=[(str(path), 0, 16)])


def virtual(file: h5py.File, path: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(path), "x", (4,))
    file.create_virtual_dataset("x", layout)


def link(file: h5py.File, path: Path) -> None:
    file["model_weights"]["x"] = h5py.ExternalLink(str(path), "/x")


@pytest.mark.parametrize(("add", "why"), [(external, "in another file"), (virtual, "in another file"), (link, "Link")])
def test_h5_data_that_is_elsewhere(
    bounded: Opener, tmp_path: Path, add: Callable[[h5py.File, Path], None], why: str
) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "h5")
    with h5py.File(folder / "model.h5", "r+") as file:
        add(file, tmp_path / "secret")
    assert why in refused(bounded, folder)


def test_soft_links_and_circles_of_an_h5_file_are_fine(bounded: Opener, tmp_path: Path) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "h5")
    with h5py.File(folder / "model.h5", "r+") as file:
        file["soft"] = h5py.SoftLink("/model_weights")
        file["dangling"] = h5py.SoftLink("/nothing")
        file["model_weights"]["up"] = file["/"]
    located = locate(folder, "m", 1)
    assert located is not None
    bounded.open(located, NEVER).close()


# code --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["keras", "h5"])
def test_a_lambda_does_not_run(bounded: Opener, tmp_path: Path, format_: str) -> None:
    ran = tmp_path / "ran"
    keras = load_keras()
    inputs = keras.Input((2,), name="pair")
    code = f"lambda x: (__import__('pathlib').Path({str(ran)!r}).touch(), x)[1]"
    folder = zoo.put(keras.Model(inputs, keras.layers.Lambda(eval(code))(inputs)), tmp_path, "m", 1, format_)
    ran.unlink()
    assert "Lambda" in refused(bounded, folder)
    assert not ran.exists()


def model_of(layer: Any) -> Any:
    inputs = load_keras().Input((2,), name="pair")
    return load_keras().Model(inputs, layer(inputs))


@pytest.mark.parametrize("format_", ["keras", "h5"])
def test_a_class_that_is_not_allowed(opener: Opener, tmp_path: Path, format_: str) -> None:
    folder = zoo.put(model_of(custom_layers.Stranger()), tmp_path, "m", 1, format_)
    message = refused(opener, folder)
    assert "'Stranger'" in message
    assert "LOADONCE_CUSTOM_OBJECTS" in message


@pytest.mark.parametrize("format_", ["keras", "h5"])
def test_a_class_that_is_allowed(opener: Opener, tmp_path: Path, format_: str) -> None:
    folder = zoo.put(model_of(custom_layers.Registered(name="y")), tmp_path, "m", 1, format_)
    located = locate(folder, "m", 1)
    assert located is not None
    loaded = opener.open(located, NEVER)
    assert loaded.predict({"pair": np.array([[1, 2]], np.float32)})["y"].tolist() == [[2, 4]]
    loaded.close()


def test_an_allowed_class_that_is_not_there(tmp_path: Path) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras")
    options = OpenOptions(frozenset(), MAX_BYTES, custom_objects=("tests.custom_layers:Missing",))
    opener = Opener(options, tmp_path / "cache", 1 << 30)
    try:
        message = refused(opener, folder)
    finally:
        opener.close(WAIT_S)
    assert message == "LOADONCE_CUSTOM_OBJECTS: tests.custom_layers:Missing cannot be imported: AttributeError"


# broken ------------------------------------------------------------------------------------------------------------

FILES = {"keras": "model.keras", "h5": "model.h5", "savedmodel": "saved_model.pb"}


@pytest.mark.parametrize("format_", FILES)
def test_random_bytes(bounded: Opener, tmp_path: Path, format_: str) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / FILES[format_]).write_bytes(np.random.default_rng(7).bytes(50_000))
    refused(bounded, folder)


@pytest.mark.parametrize("format_", FILES)
@pytest.mark.parametrize("keep", [1, 100, 0.3, 0.9])
def test_truncated_files(bounded: Opener, tmp_path: Path, format_: str, keep: float) -> None:
    folder = zoo.put(zoo.dense(), tmp_path, "m", 1, format_)
    file = folder / FILES[format_]
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    refused(bounded, folder)


# graphs ------------------------------------------------------------------------------------------------------------


def test_a_graph_that_aborts_the_process(bounded: Opener, tmp_path: Path) -> None:
    tf = load_tensorflow()
    # More dimensions than a tensor can have: a CHECK of TensorFlow's ends the process.
    folder = saved(
        tmp_path,
        lambda x: (
            x + tf.cast(tf.size(tf.raw_ops.Empty(shape=tf.fill([255 + 0 * tf.size(x)], 1), dtype=tf.float32)), x.dtype)
        ),
    )
    before = bounded.helpers.started
    assert refused(bounded, folder) == "opening it ended the helper process (SIGABRT)"
    assert bounded.helpers.started <= before + 1


def endless(x: Any) -> Any:
    tf = load_tensorflow()
    return tf.while_loop(lambda i, _: i < i + 1, lambda i, v: (i * 1, v + 1.0), [tf.constant(0), x])[1]


def test_a_graph_that_never_ends(tmp_path: Path) -> None:
    folder = saved(tmp_path, endless)
    own = Opener(OpenOptions(frozenset(), MAX_BYTES, load_timeout_s=3), tmp_path / "cache", 1 << 30)
    try:
        assert refused(own, folder, TookTooLongError) == "opening it took more than 3 s"
        assert own.helpers.pids == []
    finally:
        own.close(WAIT_S)


def test_a_graph_that_takes_all_memory(bounded: Opener, tmp_path: Path) -> None:
    tf = load_tensorflow()
    rows = 1 << 40  # FP32: 4 TB
    folder = saved(
        tmp_path, lambda x: x + tf.reduce_sum(tf.random.uniform(tf.stack([rows + 0 * tf.size(x, tf.int64)])))
    )
    assert "OOM when allocating" in refused(bounded, folder, PassingLoadError)


@pytest.mark.parametrize(
    ("number", "kind", "why"),
    [
        (signal.SIGSEGV, PermanentLoadError, "opening it ended the helper process (SIGSEGV)"),
        *(
            (end, PassingLoadError, f"the helper process that opened it was ended ({end.name}): was memory short?")
            for end in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        ),
    ],
)
def test_a_helper_that_dies_in_mid_load(
    bounded: Opener, tmp_path: Path, number: int, kind: type[LoadError], why: str
) -> None:
    folder = saved(tmp_path, endless)
    located = locate(folder, "m", 1)
    assert located is not None
    errors: list[Exception] = []
    thread = threading.Thread(target=lambda: errors.append(_error(bounded, located, NEVER)))
    thread.start()
    os.kill(at_work(bounded), number)
    thread.join(WAIT_S)
    (error,) = errors
    assert type(error) is kind
    assert str(error) == why


def test_a_load_that_is_cancelled_ends_with_its_helper(bounded: Opener, tmp_path: Path) -> None:
    located = locate(saved(tmp_path, endless), "m", 1)
    assert located is not None
    cancelled = threading.Event()
    errors: list[Exception] = []
    thread = threading.Thread(target=lambda: errors.append(_error(bounded, located, cancelled)))
    thread.start()
    pid = at_work(bounded)
    cancelled.set()
    thread.join(WAIT_S)
    (error,) = errors
    assert isinstance(error, StaleError)
    assert not Path(f"/proc/{pid}").exists()


def _error(opener: Opener, located: Any, cancelled: threading.Event) -> Exception:
    try:
        opener.open(located, cancelled)
    except (LoadError, StaleError) as error:
        return error
    raise AssertionError("it opened")


def at_work(opener: Opener) -> int:
    """The process id of the helper that has taken a request."""
    deadline = time.monotonic() + WAIT_S
    while not (busy := opener.helpers.busy_pids):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return busy[0]
