"""No test holds up a run, and no run ends without having said what failed.

pytest-timeout raises in a test that takes too long. That ends no call into C that does not return, and no wait in a
fixture that is taken down after its test has failed: pytest takes the limit away then. So there is a second limit, of
which nothing in Python is part: it prints the stack of every thread and ends the process. pytest-xdist then counts the
test as failed and goes on with another worker.
"""

import faulthandler
from collections.abc import Generator

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

GRACE_S = 120
"""What a test has beyond its own time limit, to be taken down."""


def _end_after(item: pytest.Item, seconds: float) -> None:
    if seconds > 0:
        faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[fault_handler_stderr_fd_key])


def _limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getoption("timeout") or item.config.getini("timeout"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _end_after(item, _limit_s(item) + GRACE_S)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    _end_after(item, GRACE_S)  # anew: what a failed test had left was taken away with pytest's own limit
    return (yield)


class _Failures:
    """Says at once what failed: a run that is cut off never comes to its summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and (terminal := self._config.pluginmanager.get_plugin("terminalreporter")):
            terminal.ensure_newline()
            terminal.write_line(f"FAILED in {report.when} after {report.duration:.0f} s: {report.nodeid}")
            terminal.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failures(config))
