"""Whether enough brokers are there for a topic to be written: each is asked by itself.

What the library says of the whole cluster does not tell: one broker that hangs may be the one
that was asked, and one that answers may not be enough.
"""

import time
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Lock
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource, ResourceType

from wado.adapters.message_log.kafka_cluster import Cluster, Handle, unavailable
from wado.telemetry import get_logger

_log = get_logger("kafka")
_ANSWER_S = 2.0
_HOLDS_S = 0.5
"""For so long nobody asks again after brokers were missed."""

_Replicas = frozenset[int]


class Brokers:
    """Asks the brokers that hold the replicas of topics for a sign of life.

    Parameters
    ----------
    cluster
        Where they are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._least = cluster.min_in_sync_replicas
        options = cluster.client()
        try:
            # Made before it is needed: it has to know all brokers when some of them hang.
            self._handle = Handle(AdminClient(options, logger=options.pop("logger")))
        except KafkaException as e:
            raise unavailable("the settings of the client", e) from e
        self._placed: dict[str, frozenset[_Replicas]] = {}
        self._answering: frozenset[int] = frozenset()
        self._asked_for: frozenset[str] = frozenset()
        self._asked_s = 0.0
        self._asking = Lock()

    def learn(self, found: ClusterMetadata) -> None:
        """Learn where the replicas of topics are."""
        self._placed = {
            name: frozenset(frozenset(p.replicas) for p in topic.partitions.values())
            for name, topic in found.topics.items()
        }

    def suffice(self, topics: AbstractSet[str]) -> bool:
        """Whether some partition of each topic can be written, or it is not known.

        It takes two seconds at most if brokers don't answer; who comes while another asks has its
        answer.
        """
        came_s = time.monotonic()
        with self._asking:
            if self._asked_s < came_s or not topics <= self._asked_for:
                self._asked_for |= topics
                self._answering = self._ask()
                self._asked_s = time.monotonic()
        return self._is_enough(topics)

    def were_missed(self, topics: AbstractSet[str]) -> bool:
        """Whether too few answered a moment ago; nobody is asked."""
        return time.monotonic() - self._asked_s < _HOLDS_S and not self._is_enough(topics)

    def _is_enough(self, topics: AbstractSet[str]) -> bool:
        placed = [self._placed.get(topic) for topic in topics]
        return all(any(self._is_writable(p, self._answering) for p in ps) for ps in placed if ps)

    def _is_writable(self, replicas: _Replicas, answering: frozenset[int]) -> bool:
        return len(replicas & answering) >= min(self._least, len(replicas))

    def _ask(self) -> frozenset[int]:
        """Ask all at once, until enough have answered for every partition."""
        placed = (self._placed.get(topic, frozenset()) for topic in self._asked_for)
        partitions = frozenset[_Replicas]().union(*placed)
        asked = {
            self._sign_of_life(broker): broker for broker in frozenset[int]().union(*partitions)
        }
        waiting, answering = set(asked), frozenset[int]()
        deadline = time.monotonic() + _ANSWER_S
        while waiting and not all(self._is_writable(p, answering) for p in partitions):
            done, waiting = wait(
                waiting, max(0, deadline - time.monotonic()), return_when=FIRST_COMPLETED
            )
            if not done:
                break
            answering |= {asked[future] for future in done if _has_answered(future)}
        if waiting or len(answering) < len(asked):
            _log.debug("brokers were asked", asked=sorted(asked.values()), there=sorted(answering))
        return answering

    def _sign_of_life(self, broker: int) -> "Future[Any]":
        """Ask a broker what only that one answers."""
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        asked = self._handle.client.describe_configs([resource], request_timeout=_ANSWER_S)
        return asked[resource]


def _has_answered(future: "Future[Any]") -> bool:
    """Whether there is an answer of the broker; to be refused is one, too."""
    error = future.exception()
    if isinstance(error, KafkaException):
        return int(error.args[0].code()) > 0  # below zero: of the library
    return error is None
