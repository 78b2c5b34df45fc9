"""Options: where they come from, and what is refused."""

from pathlib import Path

import pytest

from consumer import settings
from consumer.exits import Exit, FatalError
from tests.authority import Authority


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
        ("BOOTSTRAP_SERVERS", "[::1], one:1", "host:port"),
        ("DELIVERY", "at-most-once", "'at-least-once'"),
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
    assert str(error) == "LOADONCE_MAX_BATCH_ROW: no such option; did you mean LOADONCE_MAX_BATCH_ROWS?"


def test_an_unknown_name_in_a_dotenv_file_is_refused() -> None:
    Path(".env").write_text("LOADONCE_JOB_TOPIC=x\n")
    assert str(refusal()) == "LOADONCE_JOB_TOPIC (in .env): no such option; did you mean LOADONCE_JOBS_TOPIC?"


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "loadonce.toml"
    config.write_text("job_topic = 'x'\n")
    assert "did you mean jobs_topic?" in str(refusal(config))


@pytest.mark.parametrize(
    ("toml", "names"),
    [
        ('[sasl]\npassword = "hunter2"\n', "sasl"),
        ('pw = "hunter2"\n', "pw"),
        ('[[logins]]\nuser = "hunter2"\n', "logins"),
        ('[group_id]\npassword = "hunter2"\n', "group_id"),
        ('[[preload]]\npassword = "hunter2"\n', "preload"),
        ('bootstrap_servers = ["u:hunter2:h:9092"]\n', "bootstrap_servers"),
    ],
)
def test_nothing_of_a_table_or_an_unknown_name_in_the_file_is_shown(tmp_path: Path, toml: str, names: str) -> None:
    config = tmp_path / "loadonce.toml"
    config.write_text(toml)
    said = str(refusal(config))
    assert said.startswith(names)
    assert f"(in {config})" in said
    assert "hunter2" not in said


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


LOGIN = {
    "SECURITY_PROTOCOL": "SASL_SSL",
    "SASL_MECHANISM": "SCRAM-SHA-512",
    "SASL_USERNAME": "me",
    "SASL_PASSWORD": "hunter2",
}
BY_TOKEN = {
    "SECURITY_PROTOCOL": "SASL_SSL",
    "SASL_MECHANISM": "OAUTHBEARER",
    "SASL_OAUTH_TOKEN_URL": "https://issuer.example/token",
    "SASL_OAUTH_CLIENT_ID": "me",
    "SASL_OAUTH_CLIENT_SECRET": "hunter2",
}


def given(monkeypatch: pytest.MonkeyPatch, options: dict[str, str]) -> None:
    for name, value in options.items():
        monkeypatch.setenv(f"LOADONCE_{name}", value)


@pytest.mark.parametrize(
    ("options", "option", "says"),
    [
        (LOGIN | {"SASL_PASSWORD": ""}, "SASL_PASSWORD=", "needed with LOADONCE_SECURITY_PROTOCOL=SASL_SSL"),
        (LOGIN | {"SASL_USERNAME": ""}, "SASL_USERNAME=", "needed with LOADONCE_SECURITY_PROTOCOL=SASL_SSL"),
        (
            LOGIN | {"SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
            "SECURITY_PROTOCOL=SASL_PLAINTEXT",
            "use SASL_SSL, or allow it by LOADONCE_ALLOW_SASL_WITHOUT_TLS=true",
        ),
        (LOGIN | {"SASL_MECHANISM": "GSSAPI"}, "SASL_MECHANISM=GSSAPI", "'OAUTHBEARER'"),
        (BY_TOKEN | {"SASL_OAUTH_TOKEN_URL": ""}, "SASL_OAUTH_TOKEN_URL=", "or LOADONCE_SASL_OAUTH_TOKEN_FILE"),
        (BY_TOKEN | {"SASL_OAUTH_CLIENT_ID": ""}, "SASL_OAUTH_CLIENT_ID=", "needed with LOADONCE_SASL_MECHANISM"),
        (BY_TOKEN | {"SASL_OAUTH_CLIENT_SECRET": ""}, "SASL_OAUTH_CLIENT_SECRET=", "needed with"),
        (
            BY_TOKEN | {"SASL_OAUTH_TOKEN_URL": "http://issuer.example/token"},
            "SASL_OAUTH_TOKEN_URL=http://issuer.example/token",
            "use https://, or allow it by LOADONCE_ALLOW_SASL_WITHOUT_TLS=true",
        ),
        (
            BY_TOKEN | {"SASL_OAUTH_TOKEN_URL": "https://me:hunter2@issuer.example/token"},
            "SASL_OAUTH_TOKEN_URL=********",
            "without credentials in it",
        ),
        (BY_TOKEN | {"SASL_OAUTH_TOKEN_URL": "file:///etc/passwd"}, "SASL_OAUTH_TOKEN_URL=file:///etc", "https://host"),
    ],
)
def test_a_login_that_cannot_work_is_named_with_its_option(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], option: str, says: str
) -> None:
    given(monkeypatch, options)
    error = refusal()
    assert error.exit_code is Exit.CONFIG
    assert str(error).startswith(f"LOADONCE_{option}")
    assert says in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("options", [LOGIN, BY_TOKEN])
def test_a_login_is_accepted(monkeypatch: pytest.MonkeyPatch, options: dict[str, str]) -> None:
    given(monkeypatch, options)
    assert settings.load().security_protocol == "SASL_SSL"
    given(monkeypatch, {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "ALLOW_SASL_WITHOUT_TLS": "true"})
    assert settings.load().security_protocol == "SASL_PLAINTEXT"


@pytest.mark.parametrize("name", settings.SECRETS)
def test_a_secret_comes_from_its_file_as_it_is_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    file.write_text(" hunter2 \n")
    given(monkeypatch, {f"{name.upper()}_FILE": str(file)})
    loaded = settings.load()
    secret = loaded.secret(name)
    assert secret is not None
    assert secret() == " hunter2 "
    assert "hunter2" not in repr(secret) + repr(loaded) + str(settings.describe(loaded))
    file.write_bytes(b"hunter3\r\n")
    assert secret() == "hunter3"
    file.unlink()
    with pytest.raises(OSError, match=f"^LOADONCE_{name.upper()}_FILE={file}: no such file$"):
        secret()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "not UTF-8"),
        (b"hunter2" * 10_000, "more than 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    for name in ("SASL_PASSWORD_FILE", "SASL_OAUTH_TOKEN_FILE"):
        with monkeypatch.context() as patch:
            patch.setenv(f"LOADONCE_{name}", str(file))
            error = refusal()
        assert error.exit_code is Exit.CONFIG
        assert str(error).startswith(f"LOADONCE_{name}={file}: ")
        assert says in str(error)
        assert "hunter2" not in str(error)


@pytest.mark.parametrize("name", settings.SECRETS)
def test_a_secret_is_not_given_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("hunter2")
    given(monkeypatch, {name.upper(): "hunter2", f"{name.upper()}_FILE": str(tmp_path / "secret")})
    error = refusal()
    assert str(error).startswith(
        f"LOADONCE_{name.upper()}_FILE={tmp_path}/secret: given beside LOADONCE_{name.upper()};"
    )


def test_a_secret_in_the_place_of_its_file_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"SASL_PASSWORD_FILE": "hunter2"})
    assert str(refusal()) == "LOADONCE_SASL_PASSWORD_FILE=********: no such file"


def test_certificates_that_cannot_serve_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine, yours = authority.issue("mine", password=b"hunter2"), authority.issue("yours")
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("hunter2")
    for options, option, says in (
        ({"SSL_CAFILE": no_pem}, f"SSL_CAFILE={no_pem}", "no certificates"),
        ({"SSL_CERTFILE": no_pem}, f"SSL_CERTFILE={no_pem}", "cannot be used"),
        (
            {"SSL_CERTFILE": yours.certificate, "SSL_KEYFILE": mine.key},
            f"SSL_CERTFILE={yours.certificate}",
            "cannot be",
        ),
        ({"SSL_CERTFILE": mine.certificate, "SSL_KEYFILE": mine.key}, f"SSL_CERTFILE={mine.certificate}", "password"),
        ({"SSL_KEYFILE": yours.key}, "SSL_CERTFILE=", f"needed with LOADONCE_SSL_KEYFILE={yours.key}"),
    ):
        with monkeypatch.context() as patch:
            for name, value in options.items():
                patch.setenv(f"LOADONCE_{name}", str(value))
            error = refusal()
        assert error.exit_code is Exit.CONFIG
        assert str(error).startswith(f"LOADONCE_{option}: ")
        assert says in str(error)
    given(
        monkeypatch, {"SSL_CAFILE": str(authority.file), "SSL_CERTFILE": str(mine.both), "SSL_KEY_PASSWORD": "hunter2"}
    )
    assert settings.load().ssl_certfile == mine.both


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_SASL_PASSWORD", "hunter2")
    loaded = settings.load()
    assert "hunter2" not in repr(loaded)
    assert "hunter2" not in str(settings.describe(loaded))
    assert settings.named(loaded, "sasl_password") == "LOADONCE_SASL_PASSWORD=********"


@pytest.mark.parametrize("name", ["SASL_PASSWORDS", "SASL_PASWORD", "SASL_PASS", "PASSWD", "PW"])
def test_a_password_under_a_misspelt_name_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"LOADONCE_{name}", "hunter2")
    assert "hunter2" not in str(refusal())


@pytest.mark.parametrize(
    "value", ["SASL_SSL://u:hunter2:h:9092", "h:9092,u:hunter2:h:9092", "u:hunter2", "u:hunter2@h:9092"]
)
def test_credentials_before_a_server_are_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LOADONCE_BOOTSTRAP_SERVERS", value)
    assert str(refusal()).startswith("LOADONCE_BOOTSTRAP_SERVERS=********: ")
    assert "hunter2" not in str(refusal())


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hunter2@bucket/x",
        "s3://AKIA:hunt/hunter2@bucket/x",  # a key of AWS may have a '/' in it
        "az://hunter2@account/x",
        "mlflow+https://me:hunter2@host:5000",
        "s3://bucket/x?secret=hunter2",
        "s3://bucket/x#hunter2",
        "s3://[hunter2]/x",
        "s3://bucket/x?\nhunter2",
    ],
)
def test_a_store_with_credentials_in_its_url_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("LOADONCE_MODEL_STORE", url)
    error = refusal()
    assert error.exit_code is Exit.CONFIG
    assert str(error).startswith("LOADONCE_MODEL_STORE=")
    assert "without credentials" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("url", ["s3://bucket/models@2", "mlflow+http://host:5000", "mlflow+https://[::1]:5000/path"])
def test_a_store_that_is_a_url_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LOADONCE_MODEL_STORE", url)
    assert settings.named(settings.load(), "model_store") == f"LOADONCE_MODEL_STORE={url}"


def test_the_query_of_a_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, BY_TOKEN | {"SASL_OAUTH_TOKEN_URL": "https://issuer.example/token?key=hunter2"})
    loaded = settings.load()
    assert loaded.sasl_oauth_token_url == "https://issuer.example/token?key=hunter2"
    shown = "LOADONCE_SASL_OAUTH_TOKEN_URL=https://issuer.example/token?********"
    assert settings.named(loaded, "sasl_oauth_token_url") == shown
    assert "hunter2" not in str(settings.describe(loaded))
    given(monkeypatch, {"SASL_OAUTH_TOKEN_URL": "http://issuer.example/token?key=hunter2"})
    assert str(refusal()).startswith("LOADONCE_SASL_OAUTH_TOKEN_URL=http://issuer.example/token?********: ")


def test_control_characters_of_a_value_stay_out_of_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADONCE_JOBS_TOPIC", "a\nb\x1b[31m")
    assert "\x1b" not in str(refusal())


def test_every_option_has_one_sentence() -> None:
    for option in settings.describe(settings.load()):
        assert option.description.endswith("."), option.name


def test_the_page_of_options_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text("utf-8") == settings.reference(), "run: make docs"
