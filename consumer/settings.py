"""Every option, once: name, type, default, one sentence.

Strongest first: the environment (`LOADONCE_*`), a `.env` file in the working directory, the TOML file named by
`--config` (lower-case names without the prefix), the defaults here.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from consumer.credentials import (
    CredentialError,
    SecretFile,
    check_authorities,
    check_certificate,
    check_file,
    no_password,
    read_secret,
)
from consumer.exits import Exit, FatalError
from consumer.models.policy import Policies
from schemas.limits import Limits

PREFIX = "LOADONCE_"
MASK = "********"
DOTENV = Path(".env")
SECRETS = ("sasl_password", "sasl_oauth_client_secret", "ssl_key_password")
"""Each may be given as itself, or as a file by the option of the same name with `_file` behind it."""

_SERVER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_ALMOST_SERVER = re.compile(r"(\[[0-9a-fA-F:.]*\]|[A-Za-z0-9._-]*)(:[0-9]*)?")  # wrong, and no credentials in it
_USER_INFO = re.compile(r"(?<=://)[^/?#]*(?=@)")
_QUERY = re.compile(r"(?<=[?#]).+", re.DOTALL)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CUSTOM_OBJECT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,254}:[A-Za-z_][A-Za-z0-9_]{0,254}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")  # org.apache.kafka.common.internals.Topic


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _server(value: str) -> str:
    match = _SERVER.fullmatch(value)
    if not match or not 0 < int(match[2]) < 65_536:
        raise ValueError("each server is host:port and nothing else")
    return value


def _model(value: str) -> str:
    if not _MODEL.fullmatch(value):
        raise ValueError("a model's name is a letter or digit, then up to 127 letters, digits, '.', '_' or '-'")
    return value


def _topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in {".", ".."}:
        raise ValueError("a topic's name is 1 to 249 letters, digits, '.', '_' or '-'")
    return value


def _store(value: object) -> object:
    if not isinstance(value, str):
        return value
    if "://" not in value:
        return Path(value)
    parts = _split_url(value)
    if parts is None or parts.query or parts.fragment:
        raise ValueError(
            "a store's URL is scheme://place/folder, without credentials, which belong where the provider's own tools "
            "look for them"
        )
    return value


def _policies(value: tuple[str, ...]) -> tuple[str, ...]:
    Policies.parse(value)
    return value


def _custom_object(value: str) -> str:
    if not _CUSTOM_OBJECT.fullmatch(value):
        raise ValueError("each object is module:Name, as mypackage.layers:Attention")
    return value


def _token_url(value: str) -> str:
    parts = _split_url(value)
    if parts is None or parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError("the URL is https://host/path, without credentials in it")
    return value


def _split_url(value: str) -> SplitResult | None:
    """None: it cannot be read, or has credentials in it. What Python says of it is not repeated: it quotes the URL."""
    try:
        parts = urlsplit(value if value.isprintable() else "//[")  # `urlsplit` would leave out what cannot be printed
        _ = parts.port  # no number: of a password with a '/' in it the part before that
    except ValueError:
        return None
    return None if "@" in parts.netloc else parts


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Server = Annotated[str, AfterValidator(_server)]
ModelName = Annotated[str, AfterValidator(_model)]
Topic = Annotated[str, AfterValidator(_topic)]
CustomObject = Annotated[str, AfterValidator(_custom_object)]
Listed = (NoDecode, BeforeValidator(_split))
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The options of `loadonce`, checked."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=DOTENV,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    bootstrap_servers: Annotated[tuple[Server, ...], *Listed] = Field(
        ("localhost:9092",), min_length=1, description="Kafka brokers to start from: host:port, comma-separated."
    )
    group_id: str = Field("loadonce", min_length=1, max_length=249, description="The consumer group of all replicas.")
    jobs_topic: Topic = Field("inference.jobs", description="Topic the jobs are read from.")
    predictions_topic: Topic = Field("inference.predictions", description="Topic the predictions are published to.")
    dead_letters_topic: Topic = Field("inference.dead-letters", description="Topic of jobs that have no prediction.")
    model_store: Annotated[Path | str, BeforeValidator(_store)] = Field(
        Path("models"), description="Folder of the models, each in `model/version/`, or the URL of one (s3://...)."
    )
    preload: Annotated[tuple[ModelName, ...], *Listed] = Field(
        (), description="Models to load before joining the group, comma-separated; none: the default model, if any."
    )
    default_model: ModelName | None = Field(None, description="Model of the jobs that have no model-key header.")
    delivery: Literal["at-least-once", "exactly-once"] = Field(
        "at-least-once",
        description="How often a job is answered; exactly-once holds for readers that are read_committed.",
    )
    transaction_interval_ms: float = Field(
        100, ge=0, le=10_000, description="With exactly-once, the least time between two transactions."
    )
    transaction_timeout_s: float = Field(
        30,
        ge=1,
        le=900,
        description="When the brokers give a transaction up; till then readers wait for a dead replica's.",
    )
    instance_id: str | None = Field(
        None,
        pattern=r"[A-Za-z0-9._-]{1,100}",
        description="Name of this replica alone: one that is started again under it has its partitions back at once.",
    )
    session_timeout_s: float = Field(
        15, ge=6, le=1800, description="How long the partitions of a replica that has died stand still."
    )
    auto_offset_reset: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a group without committed offsets begins."
    )
    max_batch_rows: int = Field(256, ge=1, le=65_536, description="Rows that go through a model in one call.")
    max_batch_delay_ms: float = Field(
        0, ge=0, le=60_000, description="How long a job may wait for company; 0: it leaves when the model is free."
    )
    version_policy: Annotated[tuple[str, ...], *Listed, AfterValidator(_policies)] = Field(
        ("latest",),
        description="Which versions answer jobs that name none, and stay loaded: `latest`, `latest:N`, `all`, "
        "`pinned:VERSION` or an alias; for one model `model=POLICY`; comma-separated.",
    )
    cache_models: int = Field(16, ge=1, le=100_000, description="Models kept loaded at once, preloaded ones included.")
    cache_bytes: ByteSize = Field(
        ByteSize(4 * 1024**3), gt=0, description="Bytes of loaded models kept at once (as 4GiB)."
    )
    cache_min_s: float = Field(
        1, ge=0, le=86_400, description="How long a model stays loaded at least before it makes room for another."
    )
    disk_cache: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "loadonce", "models"),
        description="Folder that keeps downloads, and models in the form that loads fast; `~/.cache/loadonce/models`.",
    )
    disk_cache_bytes: ByteSize = Field(ByteSize(10 * 1024**3), gt=0, description="The most bytes kept there.")
    load_timeout_s: Seconds = Field(300, description="How long opening a model may take before it is given up.")
    load_attempts: int = Field(4, ge=1, le=1000, description="How often loading is tried where the failure may pass.")
    load_backoff_s: Seconds = Field(0.5, description="Wait after a first failed load, doubled each time, with jitter.")
    load_backoff_max_s: Seconds = Field(30, description="The longest wait between two tries to load.")
    trusted_h5_models: Annotated[tuple[ModelName, ...], *Listed] = Field(
        (), description="Models whose legacy .h5 file may hold code (Lambda layers): opening one runs it."
    )
    custom_objects: Annotated[tuple[CustomObject, ...], *Listed] = Field(
        (), description="Classes and functions Keras files may use beside Keras' own: module:Name, comma-separated."
    )
    require_manifest: bool = Field(False, description="Refuse versions whose manifest does not have all digests.")
    manifest_public_key: Path | None = Field(
        None, description="PEM file of the ed25519 key that manifests must be signed with (`loadonce models sign`)."
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Consumer processes of one `loadonce run`, each with models and a share of the cores of its own; "
        "the HTTP endpoint speaks for all.",
    )
    intra_op_threads: int = Field(0, ge=0, le=4096, description="Threads within an operation; 0: one for each core.")
    inter_op_threads: int = Field(
        -1, ge=-1, le=4096, description="Operations at once; -1: one, in the calling thread; 0: one for each core."
    )
    jit_compile: bool = Field(
        False, description="Compile models with XLA; a manifest may say otherwise, and should give batch_buckets."
    )
    mixed_precision: Annotated[Literal["none", "bfloat16", "float16"], BeforeValidator(_lower)] = Field(
        "none",
        description="What float32 is computed with, where the hardware can: `none` (itself), `bfloat16` (CPUs) or "
        "`float16` (GPUs); a manifest may say otherwise.",
    )
    store_poll_s: Seconds = Field(5, description="How often the model store is looked at.")
    max_in_flight_jobs: int = Field(
        10_000, ge=1, description="Jobs read and not yet answered, past which reading pauses."
    )
    max_in_flight_bytes: ByteSize = Field(
        ByteSize(256 * 1024**2), gt=0, description="Bytes of jobs read and not yet answered, past which reading pauses."
    )
    max_parked_jobs: int = Field(
        2_000, ge=1, description="Jobs waiting for a model to load, past which their partitions pause."
    )
    max_job_bytes: ByteSize = Field(
        ByteSize(Limits().body_bytes), gt=0, le=1024**3, description="Bytes of a job's value, past which: too-large."
    )
    max_job_header_bytes: ByteSize = Field(
        ByteSize(Limits().header_bytes),
        gt=0,
        le=1024**3,
        description="Bytes of a job's headers, past which: too-large.",
    )
    max_job_headers: int = Field(Limits().headers, ge=1, description="Headers of a job, past which: too-large.")
    max_job_tensors: int = Field(
        Limits().tensors, ge=1, le=1024, description="Tensors of a job, past which: too-large."
    )
    max_job_rows: int = Field(Limits().rows, ge=1, description="Rows of a job, past which: too-large.")
    max_job_rank: int = Field(
        Limits().rank, ge=1, le=32, description="Dimensions of a job's tensors, past which: too-large."
    )
    max_job_age_s: float = Field(
        0,
        ge=0,
        le=31_536_000,
        allow_inf_nan=False,
        description="Seconds since its record was written, past which a job is not predicted but expired; 0: no bound.",
    )
    max_in_flight_rows: int = Field(
        1_000_000, ge=1, description="Rows waiting for their model, past which reading pauses."
    )
    poison_starts: int = Field(
        2,
        ge=1,
        le=1000,
        description="Processes that may end at the same jobs before these are tried one at a time.",
    )
    dead_letter_limit: float | None = Field(
        None,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="Share of dead letters among the answers (as 0.5), past which reading pauses and /readyz fails; "
        "none: no bound.",
    )
    dead_letter_window_s: Seconds = Field(
        60, description="Seconds of answers that share is of, and the pause before a few jobs try whether it is over."
    )
    commit_interval_s: Seconds = Field(1, description="How often offsets are committed.")
    drain_s: Seconds = Field(20, description="How long a stop may take to finish the jobs in hand.")
    stall_s: Seconds = Field(
        300, description="How long a model may be busy with one batch; then /livez fails and the process ends."
    )
    http_host: str = Field("127.0.0.1", min_length=1, description="Address of /livez and /readyz; 0.0.0.0 for all.")
    http_port: int = Field(8080, ge=0, le=65_535, description="Port of /livez and /readyz; 0: any free one, logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="How logs are written; auto: console on a terminal, json elsewhere."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The least level that is logged."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How the brokers are spoken to."
    )
    allow_sasl_without_tls: bool = Field(
        False, description="Let passwords and tokens travel unencrypted: SASL_PLAINTEXT, and a token URL of http://."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="How to log in, where the protocol is SASL."
    )
    sasl_username: str | None = Field(None, description="User to log in as, but for OAUTHBEARER.")
    sasl_password: SecretStr | None = Field(None, description="Password to log in with, but for OAUTHBEARER.")
    sasl_password_file: Path | None = Field(None, description="File of that password, read at each login.")
    sasl_oauth_token_file: Path | None = Field(
        None, description="File of the token to log in with by OAUTHBEARER, read at each login."
    )
    sasl_oauth_token_url: Annotated[str, AfterValidator(_token_url)] | None = Field(
        None, description="Where OAUTHBEARER gets its tokens from, by the client credentials grant; instead of a file."
    )
    sasl_oauth_client_id: str | None = Field(None, description="Client that asks for tokens.")
    sasl_oauth_client_secret: SecretStr | None = Field(None, description="Secret of that client.")
    sasl_oauth_client_secret_file: Path | None = Field(None, description="File of that secret, read for each token.")
    sasl_oauth_scope: str | None = Field(None, description="Scope of the tokens that are asked for.")
    ssl_cafile: Path | None = Field(
        None, description="PEM file of the authorities that sign the brokers' certificates; none: the system's."
    )
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's own certificate.")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the client's private key.")
    ssl_key_password: SecretStr | None = Field(None, description="Password of that key, where it is encrypted.")
    ssl_key_password_file: Path | None = Field(None, description="File of that password, read at each connection.")

    @classmethod
    def settings_customise_sources(  # noqa: D102 - the TOML file's values come as init arguments, weaker than all else
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings calls with all five
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, dotenv_settings, init_settings

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if len({self.jobs_topic, self.predictions_topic, self.dead_letters_topic}) < 3:
            raise _Conflict("jobs_topic", "jobs, predictions and dead letters need a topic each")
        if self.load_backoff_max_s < self.load_backoff_s:
            raise _Conflict("load_backoff_max_s", f"less than {env_name('load_backoff_s')}={self.load_backoff_s:g}")
        if len(self.models_to_preload) > self.cache_models:
            raise _Conflict("cache_models", f"fewer than the {len(self.models_to_preload)} models to preload")
        if self.manifest_public_key is not None and not self.manifest_public_key.is_file():
            raise _Conflict("manifest_public_key", "no such file")
        return self

    @model_validator(mode="after")
    def _secrets_can_be_read(self) -> Self:
        for name in SECRETS:
            file = getattr(self, f"{name}_file")
            if file is None:
                continue
            if getattr(self, name) is not None:
                raise _Conflict(f"{name}_file", f"given beside {env_name(name)}; leave one out")
            _serves(f"{name}_file", partial(read_secret, file))
        if self.sasl_oauth_token_file is not None:
            _serves("sasl_oauth_token_file", partial(read_secret, self.sasl_oauth_token_file))
        return self

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        protocol = f"{env_name('security_protocol')}={self.security_protocol}"
        if self.security_protocol.startswith("SASL"):
            self._need(protocol, "sasl_mechanism")
            if self.sasl_mechanism == "OAUTHBEARER":
                self._can_get_tokens()
            else:
                self._need(protocol, "sasl_username", "sasl_password")
        if self.security_protocol == "SASL_PLAINTEXT" and not self.allow_sasl_without_tls:
            raise _Conflict("security_protocol", _UNENCRYPTED.format("use SASL_SSL"))
        return self

    def _can_get_tokens(self) -> None:
        mechanism = f"{env_name('sasl_mechanism')}={self.sasl_mechanism}"
        if self.sasl_oauth_token_file is not None:
            if self.sasl_oauth_token_url is not None:
                raise _Conflict(
                    "sasl_oauth_token_file", f"given beside {env_name('sasl_oauth_token_url')}; leave one out"
                )
            return
        if self.sasl_oauth_token_url is None:
            raise _Conflict(
                "sasl_oauth_token_url", f"this or {env_name('sasl_oauth_token_file')} needed with {mechanism}"
            )
        self._need(mechanism, "sasl_oauth_client_id", "sasl_oauth_client_secret")
        if not self.sasl_oauth_token_url.startswith("https:") and not self.allow_sasl_without_tls:
            raise _Conflict("sasl_oauth_token_url", _UNENCRYPTED.format("use https://"))

    def _need(self, because: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) is None and getattr(self, f"{name}_file", None) is None:
                raise _Conflict(name, f"needed with {because}")

    @model_validator(mode="after")
    def _certificates_can_be_read(self) -> Self:
        cafile, certfile, keyfile = self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            if (path := getattr(self, name)) is not None:
                _serves(name, partial(check_file, path))
        if cafile is not None:
            _serves("ssl_cafile", partial(check_authorities, cafile))
        if certfile is not None:
            password = self.secret("ssl_key_password") or no_password
            _serves("ssl_certfile", partial(check_certificate, certfile, keyfile, password))
        elif keyfile is not None:
            raise _Conflict("ssl_certfile", f"needed with {env_name('ssl_keyfile')}={keyfile}")
        return self

    def secret(self, name: str) -> Callable[[], str] | None:
        """One of SECRETS, to be asked for each time it is needed: its file may have been replaced. None: not given."""
        file, value = getattr(self, f"{name}_file"), getattr(self, name)
        if file is not None:
            return SecretFile(file, named(self, f"{name}_file"))
        return None if value is None else value.get_secret_value

    @property
    def policies(self) -> Policies:
        """VERSION_POLICY, read."""
        return Policies.parse(self.version_policy)

    @property
    def models_to_preload(self) -> tuple[str, ...]:
        """PRELOAD, or the default model where that is empty; each name once."""
        names = self.preload or ((self.default_model,) if self.default_model else ())
        return tuple(dict.fromkeys(names))

    @property
    def limits(self) -> Limits:
        """How large a job may be. An element is a byte at least, so bytes bound the elements."""
        return Limits(
            body_bytes=self.max_job_bytes,
            header_bytes=self.max_job_header_bytes,
            headers=self.max_job_headers,
            tensors=self.max_job_tensors,
            rows=self.max_job_rows,
            rank=self.max_job_rank,
            elements=self.max_job_bytes,
        )


_UNENCRYPTED = (
    f"what is logged in with would travel unencrypted; {{}}, or allow it by {PREFIX}ALLOW_SASL_WITHOUT_TLS=true"
)


class _Conflict(ValueError):  # noqa: N818 - never raised out of here: pydantic wraps it
    """An option that does not fit the others."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


def _serves(option: str, check: Callable[[], object]) -> None:
    try:
        check()
    except CredentialError as error:
        raise _Conflict(option, str(error)) from None


@dataclass(frozen=True, slots=True)
class Option:
    """One option as `config show` and the reference have it. `value` and `default` are text, secrets masked."""

    name: str
    value: str
    default: str
    description: str


def reference() -> str:
    """All options as a Markdown page: what docs/settings.md holds."""
    rows = [
        f"| `{env_name(name)}` | {_code(field.get_default(call_default_factory=False))} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Options",
            "",
            "Generated by `make docs`. Strongest first: the environment, a `.env` file in the working directory,",
            "the TOML file of `--config` (lower case, without the prefix: `max_batch_rows = 512`), the default.",
            "An unknown `LOADONCE_*` name is refused. Lists are comma-separated; bytes take units, as `512MiB`.",
            "",
            "| option | default | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def env_name(option: str) -> str:
    """`max_batch_rows` -> `LOADONCE_MAX_BATCH_ROWS`."""
    return PREFIX + option.upper()


def load(config: Path | None = None) -> Settings:
    """Read the options, or raise FatalError (78, or 66 for a missing file) naming the first that cannot be."""
    file = _read_toml(config) if config else {}
    _refuse_unknown(config, file)
    try:
        return Settings(**file)
    except ValidationError as error:
        raise FatalError(Exit.CONFIG, _first_problem(error, config, file)) from None


def describe(settings: Settings) -> list[Option]:
    """All options in the order of their definition."""
    return [
        Option(
            env_name(name),
            _text(getattr(settings, name)),
            _text(field.get_default(call_default_factory=False)),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def named(settings: Settings, option: str) -> str:
    """`LOADONCE_NAME=value`, as messages name an option; secrets masked."""
    return f"{env_name(option)}={_one_line(_text(getattr(settings, option)))}"


def _code(default: object) -> str:
    text = _text(default)
    return f"`{text}`" if text else ""


def _text(value: object) -> str:
    match value:
        case None | SecretStr():
            return "" if value is None else MASK
        case tuple():
            return ",".join(map(str, value))
        case ByteSize():
            return value.human_readable(decimal=False, separator="") if value % 1024 == 0 else str(int(value))
        case float():
            return f"{value:g}"
        case str():
            return _public(value)
    return str(value)


def _public(text: str) -> str:
    """A URL with what may be secret in it masked: user info, query and fragment. Any other text as it is."""
    return _QUERY.sub(MASK, _USER_INFO.sub(MASK, text)) if "://" in text else text


def _one_line(value: object) -> str:
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= 200 else text[:197] + "..."


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FatalError(Exit.STORE_MISSING, f"--config {_one_line(path)}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FatalError(Exit.CONFIG, f"--config {_one_line(path)}: {_one_line(error)}") from None


def _refuse_unknown(config: Path | None, file: dict[str, Any]) -> None:
    options = list(Settings.model_fields)
    known = {env_name(option) for option in options}
    in_dotenv = dotenv_values(DOTENV) if DOTENV.is_file() else {}
    for where, names in (("", os.environ), (" (in .env)", in_dotenv)):
        for name in names:
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                raise FatalError(Exit.CONFIG, _unknown(name, where, name.upper(), known))
    for name in file:
        if name not in options:
            raise FatalError(Exit.CONFIG, _unknown(name, f" (in {_one_line(config)})", name.lower(), options))


def _unknown(name: str, where: str, sought: str, known: Iterable[str]) -> str:
    """Without the value: under a name that nobody knows it may be a secret."""
    near = difflib.get_close_matches(sought, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`loadonce config show` lists them all"
    return f"{_one_line(name)}{where}: no such option; {hint}"


def _first_problem(error: ValidationError, config: Path | None, file: dict[str, Any]) -> str:
    problem = error.errors()[0]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, _Conflict):
        option, value = cause.option, _source(cause.option)
    else:
        option = str(problem["loc"][0]) if problem["loc"] else "?"
        value = _source(option)
    if value is None and option in file:
        return f"{option}={_hide(option, file[option])} (in {_one_line(config)}): {_message(problem, cause)}"
    if value is None:
        default = Settings.model_fields[option].get_default(call_default_factory=False)
        value = _text(cast("object", default))
    return f"{env_name(option)}={_hide(option, value)}: {_message(problem, cause)}"


def _message(problem: Any, cause: object) -> str:
    text = str(cause) if cause else str(problem["msg"])
    return _one_line(text[:1].lower() + text[1:])


def _hide(option: str, value: object) -> str:
    return MASK if value and _may_be_secret(option, value) else _one_line(_public(str(value)))


def _may_be_secret(option: str, value: object) -> bool:
    """Whether it is one, or a mistake that is made with one: in place of its file, before a host, in a table."""
    text, given = str(value), value if isinstance(value, list) else [value]
    if "@" in text or ("://" in text and _split_url(text) is None):
        return True
    if any(isinstance(each, dict | list) for each in given):
        return True
    if option == "bootstrap_servers":
        servers = ",".join(map(str, given)).split(",")
        return not all(_ALMOST_SERVER.fullmatch(server.strip()) for server in servers)
    if option.removesuffix("_file") in SECRETS or option == "sasl_oauth_token_file":
        return option in SECRETS or not text.startswith(("/", "."))
    return False


def _source(option: str) -> str | None:
    name = env_name(option)
    in_dotenv = dotenv_values(DOTENV) if DOTENV.is_file() else {}
    for names in (os.environ, in_dotenv):
        for have in names:
            if have.upper() == name:
                return names[have]
    return None
