"""Options: where they come from, and what is refused."""

from pathlib import Path

import pytest

from consumer import settings
from consumer.exits import Exit, FatalError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("LOADONCE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(config: Path | None = None) -> FatalError:
    with pytest.raises(FatalError) as refused:
        settings.load(config)
    assert "\n" not in str(refused.value)
    return refused.value


def test_the_defaults_need_nothing() -> None:
    loaded = settings.load()
    assert loaded.auto_offset_reset == "earliest"
    assert loaded.jobs_topic == "inference.jobs"
    assert loaded.models_to_preload == ()


def test_environment_beats_dotenv_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "loadonce.toml"
    config.write_text('group_id = "file"\njobs_topic = "file"\nmax_batch_rows = 7\n')
    Path(".env").write_text("LOADONCE_GROUP_ID=dotenv\nLOADONCE_JOBS_TOPIC=dotenv\nOTHER=1\n")
    monkeypatch.setenv("LOADONCE_GROUP_ID", "environment")
    loaded = settings.load(config)
    assert (loaded.group_id, loaded.jobs_topic, loaded.max_batch_rows) == ("environment", "dotenv", 7)
    assert loaded.predictions_topic == "inference.predictions"


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_PRELOAD", "a, b,a,")
    monkeypatch.setenv("LOADONCE_BOOTSTRAP_SERVERS", "one:1,[::1]:2")
    loaded = settings.load()
    assert loaded.models_to_preload == ("a", "b")
    assert loaded.bootstrap_servers == ("one:1", "[::1]:2")


def test_the_default_model_is_preloaded_where_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_DEFAULT_MODEL", "digits")
    assert settings.load().models_to_preload == ("digits",)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_DEFAULT_MODEL", "")
    assert settings.load().default_model is None


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("MAX_BATCH_ROWS", "abc", "integer"),
        ("MAX_BATCH_ROWS", "0", "greater than or equal to 1"),
        ("BOOTSTRAP_SERVERS", "localhost", "host:port"),
        ("BOOTSTRAP_SERVERS", "localhost:99999", "host:port"),
        ("DELIVERY", "at-most-once", "'at-least-once'"),
        ("DELIVERY", "exactly-once", "not available yet"),
        ("AUTO_OFFSET_RESET", "none", "'earliest' or 'latest'"),
        ("PRELOAD", "fine,../evil", "a model's name"),
        ("DEFAULT_MODEL", "-", "a model's name"),
        ("JOBS_TOPIC", "a/b", "a topic's name"),
        ("JOBS_TOPIC", "inference.predictions", "a topic each"),
        ("STORE_POLL_S", "nan", "finite"),
        ("LOAD_BACKOFF_MAX_S", "0.1", "less than LOADONCE_LOAD_BACKOFF_S=0.5"),
        ("SSL_CAFILE", "missing.pem", "no such file"),
        ("HTTP_PORT", "70000", "65535"),
        ("LOG_FORMAT", "xml", "'json'"),
    ],
)
def test_a_bad_value_is_named_with_its_option(
    monkeypatch: pytest.MonkeyPatch, option: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"LOADONCE_{option}", value)
    error = refusal()
    assert error.exit_code is Exit.CONFIG
    assert str(error).startswith(f"LOADONCE_{option}={value}: ")
    assert says in str(error)


def test_an_unknown_name_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_MAX_BATCH_ROW", "2")
    error = refusal()
    assert error.exit_code is Exit.CONFIG
    assert str(error) == "LOADONCE_MAX_BATCH_ROW=2: no such option; did you mean LOADONCE_MAX_BATCH_ROWS?"


def test_an_unknown_name_in_a_dotenv_file_is_refused() -> None:
    Path(".env").write_text("LOADONCE_JOB_TOPIC=x\n")
    assert str(refusal()) == "LOADONCE_JOB_TOPIC=x (in .env): no such option; did you mean LOADONCE_JOBS_TOPIC?"


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "loadonce.toml"
    config.write_text("job_topic = 'x'\n")
    assert "did you mean jobs_topic?" in str(refusal(config))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refusal(missing).exit_code is Exit.STORE_MISSING
    broken = tmp_path / "broken.toml"
    broken.write_text("a = ")
    assert str(broken) in str(refusal(broken))


def test_a_login_needs_all_of_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("LOADONCE_SASL_PASSWORD", "hunter2")
    error = refusal()
    assert str(error).startswith("LOADONCE_SASL_MECHANISM=: needed with LOADONCE_SECURITY_PROTOCOL=SASL_SSL")


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_SASL_PASSWORD", "hunter2")
    loaded = settings.load()
    assert "hunter2" not in repr(loaded)
    assert "hunter2" not in str(settings.describe(loaded))
    assert settings.named(loaded, "sasl_password") == "LOADONCE_SASL_PASSWORD=********"


@pytest.mark.parametrize("name", ["SASL_PASSWORDS", "SASL_PASWORD", "SASL_PASS", "PASSWD"])
def test_a_password_under_a_misspelt_name_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"LOADONCE_{name}", "hunter2")
    assert "hunter2" not in str(refusal())


def test_control_characters_of_a_value_stay_out_of_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_JOBS_TOPIC", "a\nb\x1b[31m")
    assert "\x1b" not in str(refusal())


def test_every_option_has_one_sentence() -> None:
    for option in settings.describe(settings.load()):
        assert option.description.endswith("."), option.name


def test_the_page_of_options_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text("utf-8") == settings.reference(), "run: make docs"
