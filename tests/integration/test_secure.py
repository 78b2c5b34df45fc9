"""Logins, certificates and rights against a broker that checks them all."""

import contextlib
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumer.cli.jobs import _brokers
from consumer.delivery.topics import DEFAULT_RECORD_LIMIT, check_topics
from consumer.exits import Exit
from consumer.settings import Settings
from schemas import AccessRefusedError, DeadLetter, Job, JobClient, JobFailedError, OutcomeReader, Prediction, Reason
from tests import dead_letters
from tests import secured as at
from tests.authority import Authority
from tests.commands import loadonce
from tests.conftest import Topics
from tests.dead_letters import Dead
from tests.models_zoo import put_module
from tests.replica import replica, until
from tests.secured import Rights, Secured, secured_kafka
from tests.token_endpoint import Endpoint, token_endpoint

PASSWORD = "scram-Pa55word"
NEW_PASSWORD = "another-Pa55word"
CLIENT_SECRET = "client-5ecret/&+"
KEY_PASSWORD = "key-Pa55word"
ANSWER_S = 120.0

pytestmark = pytest.mark.timeout(400)
ROW = np.ones((1, 2), np.float32)

Options = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class World:
    """The broker, who gives tokens, a store with one model, and a folder."""

    secured: Secured
    endpoint: Endpoint
    store: Path
    folder: Path

    def topics(self, max_record_bytes: int = DEFAULT_RECORD_LIMIT) -> Topics:
        """Three topics that no other test knows."""
        run = uuid.uuid4().hex[:12]
        names = Topics(f"jobs-{run}", f"predictions-{run}", f"dead-letters-{run}")
        self.secured.create_topics(*astuple(names), max_record_bytes=max_record_bytes)
        return names

    def user(self, rights: Rights, password: str = PASSWORD) -> str:
        """A user that no other test knows, who logs in by SCRAM."""
        name = f"user-{uuid.uuid4().hex[:12]}"
        self.secured.password(name, password)
        self.secured.grant(name, rights)
        return name

    def options(self, topics: Topics, login: Options, listener: str = at.CLIENTS) -> dict[str, str]:
        """What a process needs, with this login and what else is there."""
        options = {
            "BOOTSTRAP_SERVERS": self.secured.kafka.servers(listener),
            "SECURITY_PROTOCOL": at.LISTENERS[listener],
            "JOBS_TOPIC": topics.jobs,
            "PREDICTIONS_TOPIC": topics.predictions,
            "DEAD_LETTERS_TOPIC": topics.dead_letters,
            "GROUP_ID": topics.jobs,
            "MODEL_STORE": self.store,
            "HTTP_PORT": 0,
            "SSL_CAFILE": self.secured.authority.file,
        }
        return {name: str(value) for name, value in {**options, **login}.items()}

    def scram(self, rights: Rights) -> dict[str, object]:
        """The login of a user of his own, who has these rights."""
        return {"SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": self.user(rights), "SASL_PASSWORD": PASSWORD}

    def drop_connections(self) -> None:
        """Stop the broker and start it again."""
        [node] = self.secured.kafka.nodes
        node.stop()
        node.start()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("secure")
    store = folder / "store"
    put_module(store / "double" / "1", lambda x: {"y": x * 2.0}, x=_floats())
    with secured_kafka(folder) as secured:
        identity = secured.authority.issue("endpoint")
        with token_endpoint(secured.issuer, identity, {"robot": CLIENT_SECRET}) as endpoint:
            yield World(secured, endpoint, store, folder)


def _floats() -> object:
    from consumer.models.backend import load_tensorflow

    tf = load_tensorflow()
    return tf.TensorSpec([None, None], tf.float32, name="x")


def for_consumer(topics: Topics) -> Rights:
    """The least rights of `loadonce run`, as docs/security.md has them."""
    return (
        ("READ", "TOPIC", topics.jobs),
        ("READ", "GROUP", topics.jobs),
        ("WRITE", "TOPIC", topics.predictions),
        ("WRITE", "TOPIC", topics.dead_letters),
    )


def for_exactly_once(topics: Topics) -> Rights:
    return (*for_consumer(topics), ("WRITE", "TRANSACTIONAL_ID", f"{topics.jobs}-"))


def for_publisher(topics: Topics) -> Rights:
    """The least rights of `publish` and `predict`."""
    return (
        ("WRITE", "TOPIC", topics.jobs),
        ("READ", "TOPIC", topics.predictions),
        ("READ", "TOPIC", topics.dead_letters),
    )


def settings(options: Mapping[str, str]) -> Settings:
    return Settings.model_validate({name.lower(): value for name, value in options.items()})


def client(world: World, topics: Topics) -> JobClient:
    """A publisher with the least rights, over the secured listener."""
    options = world.options(topics, world.scram(for_publisher(topics)))
    return JobClient(
        **_brokers(settings(options)),
        jobs_topic=topics.jobs,
        predictions_topic=topics.predictions,
        dead_letters_topic=topics.dead_letters,
    )


def _reader(topics: Topics, **brokers: Any) -> OutcomeReader:
    return OutcomeReader(**brokers, predictions_topic=topics.predictions, dead_letters_topic=topics.dead_letters)


# Logging in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [*at.MECHANISMS, "token file", "certificate", "encrypted key"])
def test_every_login_serves_consumer_publisher_and_reader(world: World, by: str, tmp_path: Path) -> None:
    topics, rights = world.topics(), (("ALL", "TOPIC", "*"),)
    listener, user = at.CLIENTS, "robot"
    login: dict[str, object]
    match by:
        case "PLAIN":
            [(user, password)] = at.PLAIN_USERS.items()
            login = {"SASL_MECHANISM": by, "SASL_USERNAME": user, "SASL_PASSWORD": password}
        case "SCRAM-SHA-256" | "SCRAM-SHA-512":
            user = world.user(())
            login = {"SASL_MECHANISM": by, "SASL_USERNAME": user, "SASL_PASSWORD": PASSWORD}
        case "OAUTHBEARER":
            (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
            login = {
                "SASL_MECHANISM": "OAUTHBEARER",
                "SASL_OAUTH_TOKEN_URL": world.endpoint.url,
                "SASL_OAUTH_CLIENT_ID": "robot",
                "SASL_OAUTH_CLIENT_SECRET_FILE": tmp_path / "secret",
                "SASL_OAUTH_SCOPE": "kafka",
            }
        case "token file":
            (tmp_path / "token").write_text(world.secured.issuer.token("robot") + "\n")
            login = {"SASL_MECHANISM": "OAUTHBEARER", "SASL_OAUTH_TOKEN_FILE": tmp_path / "token"}
        case _:
            listener, user = at.CERTIFICATES, "CN=member"
            encrypted = {"SSL_KEY_PASSWORD": KEY_PASSWORD} if by == "encrypted key" else {}
            member = world.secured.authority.issue("member", password=KEY_PASSWORD.encode() if encrypted else None)
            login = {"SSL_CERTFILE": member.certificate, "SSL_KEYFILE": member.key, **encrypted}
    world.secured.grant(user, rights)
    with_login = settings(world.options(topics, login, listener))

    assert check_topics(with_login).jobs.partitions == 2
    brokers = _brokers(with_login)
    with _reader(topics, **brokers) as reader, JobClient(**brokers, jobs_topic=topics.predictions) as publisher:
        publisher.publish("double", ROW)  # where the reader is to see that there is something
        until(lambda: reader.poll(0.2) or reader.skipped, ANSWER_S, "the record that was published")


def test_the_scope_reaches_the_endpoint(world: World) -> None:
    topics = world.topics()
    world.secured.grant("robot", for_consumer(topics))
    login = {
        "SASL_MECHANISM": "OAUTHBEARER",
        "SASL_OAUTH_TOKEN_URL": world.endpoint.url,
        "SASL_OAUTH_CLIENT_ID": "robot",
        "SASL_OAUTH_CLIENT_SECRET": CLIENT_SECRET,
        "SASL_OAUTH_SCOPE": f"jobs of {topics.jobs}",
    }
    check_topics(settings(world.options(topics, login)))
    assert {"grant_type": ["client_credentials"], "scope": [f"jobs of {topics.jobs}"]} in world.endpoint.asked


# What does not get in -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """Arguments, options, the exit code and what the one line has to say."""

    arguments: tuple[str, ...]
    options: Mapping[str, str]
    code: Exit
    says: tuple[str, ...]


CHECK = ("topics", "check")


def _refusals(world: World) -> dict[str, Refusal]:
    topics = world.topics()
    user = world.user((("ALL", "TOPIC", "*"),))
    stranger = Authority(world.folder, "stranger")
    strange = stranger.issue("strange")
    token = world.folder / "old-token"
    token.write_text(world.secured.issuer.token("robot", -60))
    scram = {"SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": user, "SASL_PASSWORD": PASSWORD}
    wrong = scram | {"SASL_PASSWORD": "wrong-Pa55word"}
    plain = {"SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "plain-user"}
    robot = {
        "SASL_MECHANISM": "OAUTHBEARER",
        "SASL_OAUTH_TOKEN_URL": world.endpoint.url,
        "SASL_OAUTH_CLIENT_ID": "robot",
    }
    nobody = "https://127.0.0.1:1/token"
    unencrypted = {"ALLOW_SASL_WITHOUT_TLS": "true"}
    secret = world.folder / "wrong-secret"
    secret.write_text("wrong-Pa55word")

    def options(listener: str = at.CLIENTS, **more: object) -> dict[str, str]:
        return world.options(topics, more, listener)

    password = ("the login is refused", "LOADONCE_SASL_PASSWORD=********", f"LOADONCE_SASL_USERNAME={user}")
    return {
        "wrong password, SCRAM": Refusal(CHECK, options(**wrong), Exit.REFUSED, password),
        "wrong password, run": Refusal(("run",), options(**wrong), Exit.REFUSED, password),
        "wrong password, tail": Refusal(("tail",), options(**wrong), Exit.REFUSED, ("refuses this client",)),
        "wrong password, predict": Refusal(
            ("predict", "double"), options(**wrong), Exit.REFUSED, ("refuses this client",)
        ),
        "wrong password, PLAIN": Refusal(
            CHECK,
            options(**plain, SASL_PASSWORD_FILE=secret),
            Exit.REFUSED,
            ("Invalid username or password", f"LOADONCE_SASL_PASSWORD_FILE={secret}"),
        ),
        "unknown user": Refusal(
            CHECK, options(**(scram | {"SASL_USERNAME": "nobody"})), Exit.REFUSED, ("LOADONCE_SASL_USERNAME=nobody",)
        ),
        "wrong client secret": Refusal(
            CHECK,
            options(**robot, SASL_OAUTH_CLIENT_SECRET="wrong-Pa55word"),
            Exit.REFUSED,
            (f"LOADONCE_SASL_OAUTH_TOKEN_URL={world.endpoint.url}: 401 invalid_client", "_CLIENT_SECRET=********"),
        ),
        "no token endpoint": Refusal(
            CHECK,
            options(**(robot | {"SASL_OAUTH_TOKEN_URL": nobody}), SASL_OAUTH_CLIENT_SECRET="wrong-Pa55word"),
            Exit.UNAVAILABLE,
            ("the token endpoint gives no token", f"check that it answers, LOADONCE_SASL_OAUTH_TOKEN_URL={nobody}"),
        ),
        "expired token": Refusal(
            CHECK,
            options(SASL_MECHANISM="OAUTHBEARER", SASL_OAUTH_TOKEN_FILE=token),
            Exit.REFUSED,
            ("invalid_token", f"LOADONCE_SASL_OAUTH_TOKEN_FILE={token}"),
        ),
        "mechanism not offered": Refusal(
            CHECK, options(at.PASSWORDS_ONLY, **scram), Exit.REFUSED, ("LOADONCE_SASL_MECHANISM=SCRAM-SHA-512",)
        ),
        "no client certificate": Refusal(CHECK, options(at.CERTIFICATES), Exit.REFUSED, ("LOADONCE_SSL_CERTFILE=",)),
        "client certificate of a stranger": Refusal(
            CHECK,
            options(at.CERTIFICATES, SSL_CERTFILE=strange.certificate, SSL_KEYFILE=strange.key),
            Exit.REFUSED,
            (f"LOADONCE_SSL_CERTFILE={strange.certificate}",),
        ),
        "broker's certificate by a stranger": Refusal(
            CHECK,
            options(**scram, SSL_CAFILE=stranger.file),
            Exit.CONFIG,
            ("certificate verify failed", f"LOADONCE_SSL_CAFILE={stranger.file}"),
        ),
        "broker's certificate for another host": Refusal(
            CHECK,
            options(at.ELSEWHERE, **scram),
            Exit.CONFIG,
            ("not valid for '127.0.0.1'", f"LOADONCE_BOOTSTRAP_SERVERS={world.secured.kafka.servers(at.ELSEWHERE)}"),
        ),
        "no TLS where TLS is spoken": Refusal(
            CHECK,
            options(**scram, **unencrypted, SECURITY_PROTOCOL="SASL_PLAINTEXT"),
            Exit.CONFIG,
            ("speaks TLS", "LOADONCE_SECURITY_PROTOCOL=SASL_PLAINTEXT"),
        ),
        "neither TLS nor login": Refusal(
            CHECK,
            options(SECURITY_PROTOCOL="PLAINTEXT"),
            Exit.CONFIG,
            ("speaks TLS", "LOADONCE_SECURITY_PROTOCOL=PLAINTEXT"),
        ),
        "TLS where none is spoken": Refusal(
            CHECK,
            options(at.UNENCRYPTED, **scram, SECURITY_PROTOCOL="SASL_SSL"),
            Exit.UNAVAILABLE,
            ("does not speak TLS", "LOADONCE_SECURITY_PROTOCOL=SASL_SSL"),
        ),
        "no login where one is wanted": Refusal(
            CHECK, options(SECURITY_PROTOCOL="SSL"), Exit.UNAVAILABLE, ("LOADONCE_SECURITY_PROTOCOL=SSL",)
        ),
        "login where none is wanted": Refusal(
            CHECK,
            options(**scram, **unencrypted, SECURITY_PROTOCOL="SASL_PLAINTEXT")
            | {"BOOTSTRAP_SERVERS": world.secured.kafka.bootstrap_servers},
            Exit.CONFIG,
            ("wants no login", "LOADONCE_SECURITY_PROTOCOL=SASL_PLAINTEXT"),
        ),
        "login without TLS": Refusal(
            CHECK,
            options(at.UNENCRYPTED, **scram),
            Exit.CONFIG,
            ("LOADONCE_SECURITY_PROTOCOL=SASL_PLAINTEXT", "LOADONCE_ALLOW_SASL_WITHOUT_TLS=true"),
        ),
    }


REFUSALS = [
    "wrong password, SCRAM",
    "wrong password, run",
    "wrong password, tail",
    "wrong password, predict",
    "wrong password, PLAIN",
    "unknown user",
    "wrong client secret",
    "no token endpoint",
    "expired token",
    "mechanism not offered",
    "no client certificate",
    "client certificate of a stranger",
    "broker's certificate by a stranger",
    "broker's certificate for another host",
    "no TLS where TLS is spoken",
    "neither TLS nor login",
    "TLS where none is spoken",
    "no login where one is wanted",
    "login where none is wanted",
    "login without TLS",
]


@pytest.fixture(scope="module")
def refused(world: World) -> dict[str, tuple[Refusal, subprocess.CompletedProcess[str]]]:
    """All of them, a few at once: each waits for its broker most of the time."""
    refusals = _refusals(world)
    assert list(refusals) == REFUSALS

    def run(refusal: Refusal) -> subprocess.CompletedProcess[str]:
        return loadonce(*refusal.arguments, options=refusal.options, stdin="[[1, 2]]", cwd=world.folder)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(refusals, zip(refusals.values(), pool.map(run, refusals.values()), strict=True), strict=True))


@pytest.mark.parametrize("name", REFUSALS)
def test_what_does_not_get_in_is_told_why_in_one_line(
    refused: dict[str, tuple[Refusal, subprocess.CompletedProcess[str]]], name: str
) -> None:
    refusal, done = refused[name]
    assert done.returncode == refusal.code, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # `run` logs as well
    assert len(told) == 1
    for words in refusal.says:
        assert words in told[0]
    for secret in (PASSWORD, "wrong-Pa55word"):
        assert secret not in done.stderr + done.stdout


def test_a_login_without_tls_can_be_allowed_by_name(world: World) -> None:
    topics = world.topics()
    login = world.scram(for_consumer(topics)) | {"ALLOW_SASL_WITHOUT_TLS": "true"}
    options = world.options(topics, login, at.UNENCRYPTED)
    assert check_topics(settings(options)).jobs.name == topics.jobs


# Rights ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_the_least_rights_are_enough(world: World, delivery: str, tmp_path: Path) -> None:
    topics = world.topics()
    rights = for_exactly_once(topics) if delivery == "exactly-once" else for_consumer(topics)
    login = world.scram(rights) | {"DELIVERY": delivery}
    with replica(tmp_path / "log", **world.options(topics, login)) as process:
        process.wait_ready()
        with client(world, topics) as publisher:
            np.testing.assert_array_equal(publisher.predict("double", ROW, timeout_s=ANSWER_S)["y"], ROW * 2)
            with pytest.raises(JobFailedError, match=Reason.UNKNOWN_MODEL):
                publisher.predict("nothing", ROW, timeout_s=ANSWER_S)
        assert process.stop() == 0


def test_the_least_rights_to_replay_are_enough(world: World) -> None:
    """Those that docs/dead-letters.md lists."""
    topics = world.topics()
    dead_letters.write(world.secured.kafka, topics, [Dead(0), Dead(1)])
    handled = f"{topics.dead_letters}.handled"
    login = world.scram((("READ", "TOPIC", topics.dead_letters), ("READ", "TOPIC", handled)))
    options = world.options(topics, login)
    listed = loadonce("dlq", "list", "--json", options=options)
    assert listed.returncode == 0, listed.stderr
    more = (
        ("CREATE", "TOPIC", handled),
        ("WRITE", "TOPIC", handled),
        ("WRITE", "TOPIC", topics.jobs),
        ("DESCRIBE", "TOPIC", topics.predictions),
        ("WRITE", "TRANSACTIONAL_ID", f"loadonce-dlq-{topics.dead_letters}"),
    )
    world.secured.grant(str(login["SASL_USERNAME"]), more)
    replayed = loadonce("dlq", "replay", "--all", "--yes", options=options)
    assert replayed.returncode == 0, replayed.stderr
    assert len(dead_letters.committed(world.secured.kafka, topics.jobs)) == 2


def test_without_describe_configs_the_record_limit_is_kafkas_default(world: World) -> None:
    topics = world.topics(max_record_bytes=2_000_000)
    login = world.scram(for_consumer(topics))
    options = settings(world.options(topics, login))
    assert check_topics(options).predictions.record_limit == DEFAULT_RECORD_LIMIT
    world.secured.grant(str(login["SASL_USERNAME"]), (("DESCRIBE_CONFIGS", "TOPIC", topics.predictions),))
    assert check_topics(options).predictions.record_limit == 2_000_000


@pytest.mark.parametrize("missing", range(5))
def test_a_right_that_is_missing_is_named_with_its_topic_or_group(world: World, missing: int, tmp_path: Path) -> None:
    topics = world.topics()
    rights = for_exactly_once(topics)
    without = rights[missing]
    login = world.scram((*rights[:missing], *rights[missing + 1 :])) | {"DELIVERY": "exactly-once"}
    done = loadonce("run", options=world.options(topics, login), cwd=tmp_path)
    assert done.returncode == Exit.REFUSED, done.stderr
    option = ("JOBS_TOPIC", "GROUP_ID", "PREDICTIONS_TOPIC", "DEAD_LETTERS_TOPIC", "GROUP_ID")[missing]
    told = done.stderr.splitlines()[-1]
    assert f"LOADONCE_{option}={without[2].removesuffix('-')}" in told
    assert told.startswith("loadonce: error: ")


@pytest.mark.parametrize("revoked", [0, 1, 2, 3], ids=["jobs", "group", "predictions", "dead letters"])
def test_a_right_that_is_revoked_ends_the_process(world: World, revoked: int, tmp_path: Path) -> None:
    topics = world.topics()
    rights = for_consumer(topics)
    login = world.scram(rights)
    log = tmp_path / "log"
    with replica(log, **world.options(topics, login)) as process, client(world, topics) as publisher:
        process.wait_ready()
        world.secured.revoke(str(login["SASL_USERNAME"]), (rights[revoked],))
        publisher.publish("nothing" if rights[revoked][2] == topics.dead_letters else "double", ROW)
        assert process.process.wait(ANSWER_S) == Exit.REFUSED
        assert rights[revoked][2] in log.read_text("utf-8").splitlines()[-1]


def test_a_publisher_without_the_right_is_told_so(world: World) -> None:
    topics = world.topics()
    login = world.scram(())
    brokers = _brokers(settings(world.options(topics, login)))
    with pytest.raises(AccessRefusedError, match=topics.jobs), JobClient(**brokers, jobs_topic=topics.jobs):
        pass
    world.secured.grant(str(login["SASL_USERNAME"]), (("DESCRIBE", "TOPIC", topics.jobs),))
    with JobClient(**brokers, jobs_topic=topics.jobs) as publisher, pytest.raises(AccessRefusedError):
        publisher.publish("double", ROW)


# What is replaced on disk ---------------------------------------------------------------------------------------------


def _serves(world: World, topics: Topics, model: str = "nothing", jobs: int = 3) -> None:
    """Jobs, published from where nothing was replaced, are answered: where there is no such model, soon."""
    plain = world.secured.kafka.bootstrap_servers
    with _reader(topics, bootstrap_servers=plain) as reader, JobClient(plain, jobs_topic=topics.jobs) as publisher:
        for _ in publisher.publish_many(Job(model, ROW) for _ in range(jobs)):
            pass
        outcomes: list[Prediction | DeadLetter] = []

        def answered() -> bool:
            outcomes.extend(reader.poll(0.2))
            return len(outcomes) >= jobs

        until(answered, ANSWER_S, "an answer for every job")


def _replace(file: Path, content: str) -> None:
    """As a secret that is mounted is replaced: in one rename."""
    new = file.with_suffix(".new")
    new.write_text(content)
    new.replace(file)


def test_a_password_that_is_replaced_on_disk_is_used_at_the_next_login(world: World, tmp_path: Path) -> None:
    topics = world.topics()
    user = world.user(for_consumer(topics))
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    login = {"SASL_MECHANISM": "SCRAM-SHA-256", "SASL_USERNAME": user, "SASL_PASSWORD_FILE": password}
    with replica(tmp_path / "log", **world.options(topics, login)) as process:
        process.wait_ready()
        _serves(world, topics)
        world.secured.password(user, NEW_PASSWORD)
        world.drop_connections()
        log = tmp_path / "log"
        until(lambda: log.read_text("utf-8").count("SaslAuthenticationFailedError") > 6, 60, "logins that are refused")
        assert process.get("/readyz")[0] == 503
        _replace(password, f"{NEW_PASSWORD}\n")
        _serves(world, topics)
        assert process.stop() == 0
    told = (tmp_path / "log").read_text("utf-8")
    assert PASSWORD not in told
    assert NEW_PASSWORD not in told


def test_certificates_that_are_replaced_on_disk_are_used_at_the_next_connection(world: World, tmp_path: Path) -> None:
    topics = world.topics()
    world.secured.grant("CN=member", for_consumer(topics))
    authority = world.secured.authority
    trusted, member = tmp_path / "trusted.pem", authority.issue("member")
    before = authority.file.read_text("ascii")
    trusted.write_text(before)
    login = {"SSL_CERTFILE": member.certificate, "SSL_KEYFILE": member.key, "SSL_CAFILE": trusted}
    with replica(tmp_path / "log", **world.options(topics, login, at.CERTIFICATES)) as process:
        process.wait_ready()
        _serves(world, topics)
        # Everything is signed by somebody else from here on: nothing that was read before would still do.
        successor = Authority(world.folder, "successor")
        for name in ("broker", "member"):
            successor.issue(name)
        for file in (authority.file, trusted):
            _replace(file, successor.file.read_text("ascii"))
        try:
            world.drop_connections()
            _serves(world, topics)
            assert process.stop() == 0
        finally:
            _replace(authority.file, before)
            for name in ("broker", "member"):
                authority.issue(name)
            world.drop_connections()


# Secrets --------------------------------------------------------------------------------------------------------------


def _descendants(process: int) -> list[Path]:
    """Its processes, and theirs."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            parents[stat.parent] = int(stat.read_text().rpartition(")")[2].split()[1])  # proc(5): state, ppid
    found = [Path(f"/proc/{process}")]
    for each in found:
        found += [child for child, parent in parents.items() if str(parent) == each.name]
    return found[1:]


def test_secrets_are_nowhere_to_be_seen(world: World, tmp_path: Path) -> None:
    topics = world.topics()
    # A model that no other test has left in the cache is opened by a process of its own.
    login = world.scram(for_consumer(topics)) | {"LOG_LEVEL": "debug", "DISK_CACHE": tmp_path / "cache"}
    secrets = {
        "SASL_PASSWORD": PASSWORD,
        "SASL_OAUTH_CLIENT_SECRET": CLIENT_SECRET,
        "SSL_KEY_PASSWORD": KEY_PASSWORD,
    }
    options = world.options(topics, login | secrets)
    seen = {}
    with replica(tmp_path / "log", **options) as process:
        process.wait_ready()
        _serves(world, topics, "double")
        seen["arguments"] = Path(f"/proc/{process.process.pid}/cmdline").read_bytes()
        helpers = _descendants(process.process.pid)
        assert helpers, "no process that opens models"
        for each in helpers:
            seen[f"arguments of {each}"] = (each / "cmdline").read_bytes()
            seen[f"environment of {each}"] = (each / "environ").read_bytes()
        world.drop_connections()
        world.secured.password(str(login["SASL_USERNAME"]), NEW_PASSWORD)
        world.drop_connections()  # the login is refused from here on
        until(lambda: b"invalid credentials" in (tmp_path / "log").read_bytes(), ANSWER_S, "word of the refused login")
        process.kill()
    seen["log"] = (tmp_path / "log").read_bytes()
    for command in (("config", "show"), ("config", "show", "--json"), ("topics", "check"), ("run",)):
        done = loadonce(*command, options=options, cwd=tmp_path)
        seen[" ".join(command)] = (done.stdout + done.stderr).encode()
        assert done.stdout or done.stderr
    for secret in secrets.values():
        for where, content in seen.items():
            assert secret.encode() not in content, where
    assert re.search(rb"LOADONCE_SASL_PASSWORD +\* +\*{8} ", seen["config show"])
