"""A cluster with a listener of each secured kind, and rights that are checked.

Administration goes over the plain listener, where everybody is the super user ANONYMOUS; users of the secured listeners
may do what a test grants them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from consumer.local import LocalKafka
from tests.authority import Authority
from tests.replica import until
from tests.token_endpoint import AUDIENCE, ISSUER, Issuer

CLIENTS = "CLIENTS"  # SASL_SSL, every mechanism
UNENCRYPTED = "UNENCRYPTED"  # SASL_PLAINTEXT
PASSWORDS_ONLY = "PASSWORDS"  # SASL_SSL, PLAIN alone
CERTIFICATES = "CERTIFICATES"  # SSL, where clients show a certificate
ELSEWHERE = "ELSEWHERE"  # SASL_SSL, with a certificate for another host
LISTENERS = {
    CLIENTS: "SASL_SSL",
    UNENCRYPTED: "SASL_PLAINTEXT",
    PASSWORDS_ONLY: "SASL_SSL",
    CERTIFICATES: "SSL",
    ELSEWHERE: "SASL_SSL",
}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
PLAIN_USERS = {"plain-user": "plain-Pa55word"}
RETRIES_S = 20.0

_CLASSES = "org.apache.kafka.common.security"
_LOGIN_MODULES = {
    "PLAIN": f"{_CLASSES}.plain.PlainLoginModule required "
    + " ".join(f'user_{user}="{password}"' for user, password in PLAIN_USERS.items()),
    "SCRAM-SHA-256": f"{_CLASSES}.scram.ScramLoginModule required",
    "SCRAM-SHA-512": f"{_CLASSES}.scram.ScramLoginModule required",
    "OAUTHBEARER": f"{_CLASSES}.oauthbearer.OAuthBearerLoginModule required",
}


class Secured:
    """The cluster, who signs its certificates and tokens, and what an administrator does to it."""

    def __init__(self, kafka: LocalKafka, authority: Authority, issuer: Issuer) -> None:
        self.kafka = kafka
        self.authority = authority
        self.issuer = issuer

    def create_topics(self, *names: str, max_record_bytes: int) -> None:
        topic = {"num_partitions": 2, "configs": {"max.message.bytes": str(max_record_bytes)}}
        with self._admin() as admin:
            admin.create_topics(dict.fromkeys(names, topic), wait_for_metadata=True)

    def password(self, user: str, password: str) -> None:
        """Let the user log in with it, and with no other, by SCRAM."""
        from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            changed = UserScramCredentialUpsertion(user, mechanism, password)
            with self._admin() as admin:
                assert admin.alter_user_scram_credentials([changed]) == {user: None}

    def grant(self, user: str, rights: "Rights") -> None:
        """Allow the user these, beside what it may already."""
        with self._admin() as admin:
            admin.create_acls([_acl(user, *right) for right in rights])
        until(lambda: set(rights) <= self._rights(user), RETRIES_S, "the rights that were granted")

    def revoke(self, user: str, rights: "Rights") -> None:
        """Allow the user these no longer."""
        from kafka.admin import ACLFilter, ACLResourcePatternType, ResourcePatternFilter

        filters = []
        for right in rights:
            acl = _acl(user, *right)
            of = acl.resource_pattern
            pattern = ResourcePatternFilter(of.resource_type, of.resource_name, ACLResourcePatternType.ANY)
            filters.append(ACLFilter(acl.principal, acl.host, acl.operation, acl.permission_type, pattern))
        with self._admin() as admin:
            admin.delete_acls(filters)
        until(lambda: not set(rights) & self._rights(user), RETRIES_S, "the end of the rights that were revoked")

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        """A client for one call: it would not notice at once that the broker was started again."""
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers)
        try:
            yield admin
        finally:
            admin.close()

    def _rights(self, user: str) -> set["Right"]:
        from kafka.admin import (
            ACLFilter,
            ACLOperation,
            ACLPermissionType,
            ACLResourcePatternType,
            ResourcePatternFilter,
            ResourceType,
        )

        every = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        of_user = ACLFilter(f"User:{user}", None, ACLOperation.ANY, ACLPermissionType.ANY, every)
        with self._admin() as admin:
            found, _ = admin.describe_acls(of_user)
        return {
            (acl.operation.name, acl.resource_pattern.resource_type.name, acl.resource_pattern.resource_name)
            for acl in found
        }


Right = tuple[str, str, str]
"""Operation, type of resource, name of the resource; a transactional id is meant as a prefix."""
Rights = tuple[Right, ...]


def _acl(user: str, operation: str, resource: str, name: str) -> Any:
    from kafka.admin import (
        ACL,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        ResourcePattern,
        ResourceType,
    )

    prefixed = resource == "TRANSACTIONAL_ID"
    kind = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
    pattern = ResourcePattern(ResourceType[resource], name, kind)
    return ACL(f"User:{user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, pattern)


@contextmanager
def secured_kafka(folder: Path) -> Iterator[Secured]:
    """One node."""
    authority = Authority(folder)
    keys = folder / "keys.json"
    issuer = Issuer(keys)
    config = _config(authority, keys)
    with pytest.MonkeyPatch.context() as patch:
        # Kafka fetches keys only from where this property of the Java machine allows it.
        patch.setenv("JDK_JAVA_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys.as_uri()}")
        with LocalKafka(config=config, listeners=LISTENERS) as kafka:
            yield Secured(kafka, authority, issuer)


def _config(authority: Authority, keys: Path) -> Mapping[str, str]:
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.issue("broker").both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        f"listener.name.{CERTIFICATES.lower()}.ssl.client.auth": "required",
        f"listener.name.{ELSEWHERE.lower()}.ssl.keystore.type": "PEM",
        f"listener.name.{ELSEWHERE.lower()}.ssl.keystore.location": str(
            authority.issue("elsewhere", ["elsewhere.example"]).both
        ),
        "sasl.oauthbearer.jwks.endpoint.url": keys.as_uri(),
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.expected.issuer": ISSUER,
    }
    for listener, protocol in LISTENERS.items():
        if not protocol.startswith("SASL"):
            continue
        of = f"listener.name.{listener.lower()}"
        mechanisms = ("PLAIN",) if listener == PASSWORDS_ONLY else MECHANISMS
        config[f"{of}.sasl.enabled.mechanisms"] = ",".join(mechanisms)
        for mechanism in mechanisms:
            config[f"{of}.{mechanism.lower()}.sasl.jaas.config"] = f"{_LOGIN_MODULES[mechanism]};"
        if "OAUTHBEARER" in mechanisms:
            config[f"{of}.oauthbearer.sasl.server.callback.handler.class"] = (
                f"{_CLASSES}.oauthbearer.OAuthBearerValidatorCallbackHandler"
            )
    return config
