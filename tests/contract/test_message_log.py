"""The contract of `MessageLog`; every adapter runs it."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

import pytest

from contract import child
from contract.message_logs import GROUP, Open, bodies, bounds, first, messages, nothing_comes, take
from wado.errors import InvalidRequest, Unavailable
from wado.ports import Message, MessageLog
from wado.records import Topic


@pytest.fixture(params=["sqlite", "kafka"])
def open_log(request: pytest.FixtureRequest) -> Open:
    """Open the log; each call as another process would."""
    opener: Open = request.getfixturevalue(f"open_{request.param}_log")
    return opener


@pytest.fixture
def log(open_log: Open) -> MessageLog:
    return open_log()


class TestPublish:
    def test_messages_come_as_published(self, log: MessageLog) -> None:
        log.publish(messages("a", "b", key="t/1.2"))
        batch = take(log, 2)[0]
        assert [(m.topic, m.partition, m.offset, m.key, m.body) for m in batch.messages] == [
            (Topic.STORAGE, 0, 0, "t/1.2", b"a"),
            (Topic.STORAGE, 0, 1, "t/1.2", b"b"),
        ]

    @pytest.mark.parametrize("topic", Topic)
    def test_each_topic_counts_from_zero(self, log: MessageLog, topic: Topic) -> None:
        for each in Topic:
            log.publish(messages(each, topic=each))
        batch = take(log, 1, topic)[0]
        assert bounds(batch) == f"{topic}-0-0-0"
        assert bodies([batch]) == [topic.encode()]

    def test_one_call_may_go_to_all_topics(self, log: MessageLog) -> None:
        log.publish([])
        log.publish(m for topic in Topic for m in messages(1, 2, topic=topic))
        assert [log.lag(topic, GROUP) for topic in Topic] == [2] * len(Topic)

    @pytest.mark.parametrize("bad", [Topic.STORAGE, Topic.WEBAPI_ACCESS])
    def test_all_or_none(self, log: MessageLog, bad: Topic) -> None:
        good = [m for topic in Topic for m in messages("good", topic=topic)]
        broken = Message(bad, "k", object())  # type: ignore[arg-type]  # cannot be stored
        with pytest.raises(Unavailable):
            log.publish([*good, broken])
        assert [log.lag(topic, GROUP) for topic in Topic] == [0] * len(Topic)
        log.publish(good)
        assert log.lag(bad, GROUP) == 1

    def test_is_kept_when_the_publisher_is_killed(self, open_log: Open) -> None:
        def publish(reached: child.Reached) -> None:
            open_log().publish(messages("a", "b"))
            reached()

        child.crash(publish)
        assert bodies(take(open_log(), 2)) == [b"a", b"b"]

    def test_many_publishers_lose_nothing_and_keep_the_order_of_each_key(
        self, open_log: Open
    ) -> None:
        def publish() -> None:
            log = open_log(partitions=3)

            def one_key(key: str) -> None:
                for n in range(20):
                    log.publish(messages(2 * n, 2 * n + 1, key=key))

            name = os.getpid()
            threads = [threading.Thread(target=one_key, args=(f"{name}-{t}",)) for t in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        log = open_log(partitions=3)
        child.complete(publish, processes=3)
        by_key: dict[str, list[int]] = {}
        offsets: dict[int, list[int]] = {}
        for batch in take(log, 360):
            for m in batch.messages:
                by_key.setdefault(m.key, []).append(int(m.body))
                offsets.setdefault(m.partition, []).append(m.offset)
        assert list(by_key.values()) == [list(range(40))] * 9
        assert all(found == list(range(len(found))) for found in offsets.values())

    def test_a_log_is_usable_after_fork(self, log: MessageLog) -> None:
        log.publish(messages("parent"))
        child.complete(lambda: log.publish(messages("child")), processes=2)
        log.publish(messages("parent"))
        assert bodies(take(log, 4)) == [b"parent", b"child", b"child", b"parent"]


class TestRead:
    def test_each_group_sees_every_message(self, log: MessageLog) -> None:
        log.publish(messages(1, 2, 3))
        for group in ("one", "two"):
            assert bodies(take(log, 3, group=group)) == [b"1", b"2", b"3"]

    def test_waits_for_new_messages(self, log: MessageLog) -> None:
        timer = threading.Timer(0.1, log.publish, [messages("late")])
        timer.start()
        assert bodies(take(log, 1)) == [b"late"]
        timer.join()

    def test_stop_ends_the_waiting(self, log: MessageLog) -> None:
        assert nothing_comes(log)

    def test_what_was_committed_does_not_come_again(self, open_log: Open) -> None:
        log = open_log()
        log.publish(messages(1, 2, 3))
        take(log, 2, max_messages=2)
        log.close()
        assert bodies(take(open_log(), 1)) == [b"3"]

    def test_a_batch_not_committed_comes_again(self, log: MessageLog) -> None:
        log.publish(messages(1, 2))
        labels: list[str] = []
        stop = Event()
        for batch in log.read(Topic.STORAGE, GROUP, stop):
            labels.append(bounds(batch))
            if len(labels) == 2:
                batch.commit()
                stop.set()
        assert labels == ["storage_queue-0-0-1"] * 2
        assert nothing_comes(log)

    def test_never_more_than_asked_for(self, log: MessageLog) -> None:
        log.publish(messages(*range(10)))
        assert [len(b.messages) for b in take(log, 10, max_messages=4)] == [4, 4, 2]

    def test_a_batch_is_of_one_partition_and_without_gaps(
        self, open_log: Open, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "kafka" in request.node.name:  # however late the broker sends the last of them
            from wado.adapters.message_log import kafka_reader  # noqa: PLC0415 - heavy

            monkeypatch.setattr(kafka_reader, "_SETTLE_S", 60.0)
        log = open_log(partitions=4)
        log.publish(m for n in range(60) for m in messages(n, key=f"k{n % 15}"))
        batches = take(log, 60, max_messages=7)
        for batch in batches:
            assert len({m.partition for m in batch.messages}) == 1
            offsets = [m.offset for m in batch.messages]
            assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
        assert {m.partition for b in batches for m in b.messages} == {0, 1, 2, 3}
        # Fair: no partition is emptied before each of them was seen.
        assert len({b.messages[0].partition for b in batches[:4]}) == 4

    def test_the_same_key_is_always_in_the_same_partition(self, open_log: Open) -> None:
        for _ in range(3):
            log = open_log(partitions=8)
            log.publish(messages("x", key="t/1.2.3"))
            log.close()
        found = take(open_log(partitions=8), 3)
        assert len({m.partition for b in found for m in b.messages}) == 1

    def test_the_number_of_partitions_is_that_of_the_making(self, open_log: Open) -> None:
        open_log(partitions=2).publish(m for n in range(9) for m in messages(n, key=str(n)))
        other = open_log(partitions=5)
        other.publish(m for n in range(9) for m in messages(n, key=str(n)))
        assert {m.partition for b in take(other, 18) for m in b.messages} == {0, 1}

    @pytest.mark.parametrize("group", ["", "../up", "a b", "x" * 65])
    def test_a_group_needs_a_plain_name(self, log: MessageLog, group: str) -> None:
        with pytest.raises(InvalidRequest):
            next(log.read(Topic.STORAGE, group, Event()))


class TestSameBounds:
    def test_after_an_exception(self, log: MessageLog) -> None:
        log.publish(messages(1, 2))
        label = bounds(first(log))
        log.publish(messages(3))
        assert [bounds(b) for b in take(log, 3)] == [label, "storage_queue-0-2-2"]

    def test_after_a_crash(self, open_log: Open) -> None:
        open_log().publish(messages(1, 2, 3))

        def read(reached: child.Reached) -> None:
            first(open_log())  # held already once
            reading = open_log().read(Topic.STORAGE, GROUP, Event(), max_messages=2)
            next(reading)
            reached()

        child.crash(read)
        log = open_log()
        log.publish(messages(4, 5))
        labels = [bounds(b) for b in take(log, 5, max_messages=1)]
        assert labels == ["storage_queue-0-0-2", "storage_queue-0-3-3", "storage_queue-0-4-4"]

    def test_after_a_crash_behind_the_commit(self, open_log: Open) -> None:
        open_log().publish(messages(1, 2, 3))

        def read(reached: child.Reached) -> None:
            reading = open_log().read(Topic.STORAGE, GROUP, Event(), max_messages=2)
            next(reading).commit()
            reached()

        child.crash(read)
        assert [bounds(b) for b in take(open_log(), 1)] == ["storage_queue-0-2-2"]

    def test_for_each_group_by_itself(self, log: MessageLog) -> None:
        log.publish(messages(1, 2))
        first(log, group="one")
        log.publish(messages(3))
        assert [bounds(b) for b in take(log, 3, group="two")] == ["storage_queue-0-0-2"]
        assert [bounds(b) for b in take(log, 2, group="one")] == ["storage_queue-0-0-1"]


class TestOneReaderPerPartition:
    def test_another_reader_waits(self, open_log: Open) -> None:
        log = open_log()
        log.publish(messages(1))
        reading = log.read(Topic.STORAGE, GROUP, Event())
        batch = next(reading)
        assert nothing_comes(log)
        assert nothing_comes(open_log())
        batch.commit()
        reading.close()  # type: ignore[attr-defined]  # it is a generator
        log.publish(messages(2))
        assert bodies(take(open_log(), 1)) == [b"2"]

    def test_another_takes_over_when_a_reader_dies(self, open_log: Open) -> None:
        log = open_log()
        log.publish(messages(1, 2))

        def read(reached: child.Reached) -> None:
            reading = open_log().read(Topic.STORAGE, GROUP, Event())
            assert len(next(reading).messages) == 2
            reached()

        with child.running(read):
            assert nothing_comes(log)
        assert bodies(take(log, 2)) == [b"1", b"2"]

    def test_a_child_does_not_keep_its_parents_partition(self, open_log: Open) -> None:
        log = open_log()
        log.publish(messages(1))
        reading = log.read(Topic.STORAGE, GROUP, Event())
        next(reading)
        with child.running(lambda reached: reached()):
            reading.close()  # type: ignore[attr-defined]  # it is a generator
            assert bodies(take(open_log(), 1)) == [b"1"]

    def test_readers_share_the_partitions(self, open_log: Open) -> None:
        log = open_log(partitions=2)
        log.publish(m for n in range(1000) for m in messages(n, key=str(n)))
        one, two = (open_log().read(Topic.STORAGE, GROUP, Event(), max_messages=1) for _ in "12")
        of_one = next(one)
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(next, two)
            # The one that is given away may be the one in hand: it is done, and the next begun.
            while wait([coming], timeout=1).not_done:
                of_one.commit()
                of_one = next(one)
            of_two = coming.result()
        assert {batch.messages[0].partition for batch in (of_one, of_two)} == {0, 1}
        for reading in (one, two):
            reading.close()  # type: ignore[attr-defined]  # it is a generator

    def test_many_readers_see_each_message_once(self, open_log: Open) -> None:
        log = open_log(partitions=3)
        log.publish(m for n in range(300) for m in messages(n, key=str(n % 40)))
        assert log.lag(Topic.STORAGE, GROUP) == 300
        found: list[bytes] = []
        stop = Event()

        def read() -> None:
            for batch in open_log().read(Topic.STORAGE, GROUP, stop, max_messages=10):
                found.extend(m.body for m in batch.messages)
                batch.commit()
                if len(found) >= 300:
                    stop.set()

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(int, found)) == list(range(300))


class TestLag:
    def test_counts_what_a_group_has_not_committed(self, log: MessageLog) -> None:
        log.publish(messages(1, 2, 3))
        assert log.lag(Topic.STORAGE, GROUP) == 3
        first(log)
        assert log.lag(Topic.STORAGE, GROUP) == 3
        take(log, 1, max_messages=3)
        assert (log.lag(Topic.STORAGE, GROUP), log.lag(Topic.STORAGE, "other")) == (0, 3)


class TestDeadLetters:
    def test_a_rejected_message_is_kept_with_its_reason(self, log: MessageLog) -> None:
        log.publish(messages("good", "bad"))
        batch = first(log)
        batch.reject(batch.messages[1], "no UID")
        letter = next(log.dead_letters(Topic.STORAGE))
        assert (letter.message, letter.group, letter.reason) == (batch.messages[1], GROUP, "no UID")
        assert letter.rejected_at.endswith("+00:00")
        assert not list(log.dead_letters(Topic.LOG))

    def test_rejecting_again_leaves_one(self, open_log: Open) -> None:
        open_log().publish(messages("bad"))

        def reject(reached: child.Reached) -> None:
            reading = open_log().read(Topic.STORAGE, GROUP, Event())
            batch = next(reading)
            batch.reject(batch.messages[0], "first")
            reached()

        child.crash(reject)
        log = open_log()
        batch = first(log)
        batch.reject(batch.messages[0], "second")
        assert [letter.reason for letter in log.dead_letters(Topic.STORAGE)] == ["first"]

    def test_come_oldest_first(self, log: MessageLog) -> None:
        log.publish(messages(*range(450)))
        batch = first(log)
        for m in reversed(batch.messages):
            batch.reject(m, "bad")
        found = [int(letter.message.body) for letter in log.dead_letters(Topic.STORAGE)]
        assert found == list(range(449, -1, -1))

    def test_replay_publishes_and_removes(self, log: MessageLog) -> None:
        log.publish(messages("bad", key="k"))
        for batch in (take(log, 1)[0], *take(log, 1, group="other")):
            batch.reject(batch.messages[0], "bad")
        letters = [x for x in log.dead_letters(Topic.STORAGE) if x.group == GROUP]
        assert log.replay(letters) == 1
        assert [x.group for x in log.dead_letters(Topic.STORAGE)] == ["other"]
        batch = take(log, 1)[0]
        assert [(m.key, m.body, m.offset) for m in batch.messages] == [("k", b"bad", 1)]
        assert log.replay(letters) == 0
        assert nothing_comes(log)


class TestTrim:
    def test_forgets_what_each_group_committed(self, log: MessageLog) -> None:
        log.publish(messages(*range(10)))
        take(log, 10, group="fast")
        take(log, 4, group="slow", max_messages=4)
        assert log.trim(Topic.STORAGE, ["fast", "slow"], keep_s=0) == 4
        assert bodies(take(log, 6, group="slow")) == [str(n).encode() for n in range(4, 10)]

    def test_keeps_what_is_young(self, log: MessageLog) -> None:
        log.publish(messages(1, 2))
        take(log, 2)
        assert log.trim(Topic.STORAGE, [GROUP], keep_s=3600) == 0

    def test_keeps_all_until_each_group_has_begun(self, log: MessageLog) -> None:
        log.publish(messages(1, 2))
        take(log, 2, group="of-others")
        assert log.trim(Topic.STORAGE, [GROUP], keep_s=0) == 0
        take(log, 2)
        assert log.trim(Topic.STORAGE, [GROUP, "not-begun"], keep_s=0) == 0
        assert bodies(take(log, 2, group="not-begun")) == [b"1", b"2"]

    def test_groups_of_others_hold_nothing(self, log: MessageLog) -> None:
        assert nothing_comes(log, group="of-others")
        log.publish(messages(*range(5)))
        take(log, 1, group="slow-of-others", max_messages=1)
        take(log, 4, max_messages=4)
        assert log.trim(Topic.STORAGE, [GROUP], keep_s=0) == 4

    def test_offsets_go_on(self, open_log: Open) -> None:
        log = open_log()
        log.publish(messages(*range(1200)))
        take(log, 1200)
        assert log.trim(Topic.STORAGE, [GROUP], keep_s=0) >= 1199
        log.close()
        log = open_log()
        log.publish(messages("next"))
        assert [bounds(b) for b in take(log, 1)] == ["storage_queue-0-1200-1200"]
        assert log.lag(Topic.STORAGE, GROUP) == 0

    def test_a_new_group_begins_at_what_is_left(self, log: MessageLog) -> None:
        log.publish(messages(1, 2, 3))
        take(log, 2, max_messages=2)
        log.trim(Topic.STORAGE, [GROUP], keep_s=0)
        assert log.lag(Topic.STORAGE, "new") == 1
        assert bodies(take(log, 1, group="new")) == [b"3"]

    def test_disturbs_no_publisher(self, log: MessageLog) -> None:
        log.publish(messages(*range(3000)))
        take(log, 3000)
        given = (Topic.STORAGE, [GROUP]), {"keep_s": 0}
        trimming = threading.Thread(target=log.trim, args=given[0], kwargs=given[1])
        trimming.start()
        log.publish(messages("new"))
        trimming.join()
        assert bodies(take(log, 1)) == [b"new"]
