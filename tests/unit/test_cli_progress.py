"""Progress away from a terminal: nothing for what is quick, a line now and then for what is not."""

import io

from rich.console import Console

from consumer.progress import Progress


def test_lines_come_two_seconds_apart() -> None:
    shown, now = io.StringIO(), 0.0
    progress = Progress(Console(file=shown, force_terminal=False), clock=lambda: now)

    with progress.count("published", 100) as done:
        for number in range(50):
            now = number / 10
            done(number)

    assert shown.getvalue().splitlines() == ["  2.0 s  published: 20 of 100", "  4.0 s  published: 40 of 100"]


def test_what_is_quick_is_silent() -> None:
    shown = io.StringIO()

    with Progress(Console(file=shown, force_terminal=False), clock=lambda: 0.0).count("published", 3) as done:
        done(3)

    assert shown.getvalue() == ""


def test_a_terminal_gets_a_bar_after_two_seconds() -> None:
    shown, now = io.StringIO(), 0.0
    progress = Progress(Console(file=shown, force_terminal=True, width=80), clock=lambda: now)

    with progress.count("published", 100) as done:
        done(1)
        assert "published" not in shown.getvalue()
        now = 3.0
        done(60)

    assert "60/100" in shown.getvalue()


def test_brackets_are_text() -> None:
    shown = io.StringIO()

    Progress(Console(file=shown, force_terminal=False), clock=lambda: 0.0).tell("echo '[[1,2]]' [bold]")

    assert shown.getvalue() == "  0.0 s  echo '[[1,2]]' [bold]\n"
