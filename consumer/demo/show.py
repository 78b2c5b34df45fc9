"""The report as tables for a person."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.demo.report import Report


def show(report: Report, console: Console) -> None:
    """Print the report: models, loads, dead letters, the sum."""
    console.print(_models(report), _failed(report), _loads(report))
    console.print(
        f"{report.jobs} jobs = {report.predictions} predictions + {report.dead_letters} dead letters, "
        f"{report.duplicates} duplicates; all published at once: {report.jobs_per_s:,.0f} jobs/s; "
        f"{report.seconds:.0f} s in all"
    )
    for problem in report.problems:
        console.print(Text(f"does not add up: {problem}", style="bold red"))
    if not report.problems:
        console.print(Text("every number adds up", style="bold green"))


def _models(report: Report) -> Table:
    table = _table("Jobs in, predictions out (direct: the model called without Kafka)")
    table.add_column("model")
    for heading in ("jobs", "pre-\ndictions", "dead\nletters", "accuracy", "direct", "jobs/s", "p50/p99\nms"):
        table.add_column(heading, justify="right")
    for model in report.models:
        table.add_row(
            f"{model.model} {model.format}",
            str(model.jobs),
            str(model.predictions),
            str(model.dead_letters),
            f"{model.accuracy:.2%}",
            f"{model.direct_accuracy:.2%}",
            f"{model.jobs_per_s:,.0f}",
            f"{model.p50_ms:.0f}/{model.p99_ms:.0f}",
        )
    return table


def _failed(report: Report) -> Table:
    table = _table("Jobs that must fail: their dead letters")
    for heading in ("job", "reason", "message"):
        table.add_column(heading, overflow="fold")
    for failed in report.failed:
        table.add_row(failed.case, failed.reason or "no dead letter", Text(failed.message))
    return table


def _loads(report: Report) -> Table:
    table = _table("How often each process loaded each model")
    table.add_column("process")
    for model in report.models:
        table.add_column(model.model, justify="right")
    table.add_column("exit code", justify="right")
    for process, counts in report.loads.items():
        code = report.exit_codes.get(process)
        table.add_row(
            process,
            *(str(counts.get(model.model, 0)) for model in report.models),
            "still running" if code is None else str(code),
        )
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
