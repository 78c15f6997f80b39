"""Senders: each makes up images and repeats them until each is acknowledged, as modalities do."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from threading import Event, Thread

from chaos.images import Image
from chaos.ledger import Answer, Ledger, Verdict
from chaos.peers import DELIVERIES, Deliver, Target

_SIDES = (64, 96, 128, 160)
"""Mostly 8 to 50 KB; one in thirty is of 512 x 512 pixels, half a megabyte."""
_LARGE_SIDE = 512
_LARGE = 1 / 30
_RESEND = 1 / 15
_MOST_AT_A_TIME = 5
_SERIES_LENGTH = 30
_FIRST_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.2, 2.0


@dataclass
class Sender:
    """One sender: a stream of images, in studies that it shares with the other senders.

    Parameters
    ----------
    name
        Of the run: studies are called after it.
    number
        Which sender it is; even ones share their series, too.
    protocol
        Name of the way to send.
    deliver
        Sends.
    ledger
        Takes what was answered.
    chance
        Decides sizes, counts, and what is sent once more.
    images_per_s
        Most images in a second.
    """

    name: str
    number: int
    protocol: str
    deliver: Deliver
    ledger: Ledger
    chance: Random
    images_per_s: float
    stop: Event = field(default_factory=Event)
    give_up: Event = field(default_factory=Event)
    made: int = 0
    _acknowledged: list[Image] = field(default_factory=list)

    def run(self) -> None:
        """Send until told to stop; then until all is acknowledged, or told to give up."""
        try:
            while not self.stop.is_set():
                began = time.monotonic()
                images = self._next_images()
                for image in images:
                    self.ledger.open(image)
                self._send(images)
                pause_s = len(images) / self.images_per_s - (time.monotonic() - began)
                self.stop.wait(max(pause_s, 0))
        except Exception:  # noqa: BLE001 - an answer that nobody foresaw is a finding
            self.ledger.findings.append(f"{self.protocol}: {traceback.format_exc()}")

    def _next_images(self) -> list[Image]:
        if self._acknowledged and self.chance.random() < _RESEND:
            return [self.chance.choice(self._acknowledged)]
        images = []
        for _ in range(self.chance.randint(1, _MOST_AT_A_TIME)):
            round_, place = divmod(self.made, _SERIES_LENGTH)
            large = self.chance.random() < _LARGE
            side = _LARGE_SIDE if large else self.chance.choice(_SIDES)
            # Sender 0 and 2 write to one series, numbers apart: a journal with two sources.
            series = f"series-{self.number if self.number % 2 else 'shared'}"
            number = place * 100 + self.number
            images.append(Image(f"{self.name}-{round_}", series, number, side))
            self.made += 1
        return images

    def _send(self, images: Sequence[Image]) -> None:
        left = {image.sop_instance_uid: image for image in images}
        delay_s = _FIRST_BACK_OFF_S

        def tell(image: Image, answer: Answer) -> None:
            self.ledger.note(self.protocol, image, answer)
            if answer.verdict is Verdict.ACKNOWLEDGED:
                left.pop(image.sop_instance_uid, None)
                self._acknowledged.append(image)

        while left and not self.give_up.is_set():
            before = len(left)
            self.deliver(list(left.values()), tell)
            if left:
                delay_s = min(delay_s * 2, _LONGEST_BACK_OFF_S)
                self.give_up.wait(_FIRST_BACK_OFF_S if len(left) < before else delay_s)


class Senders:
    """Several senders in threads of their own."""

    def __init__(
        self, target: Target, ledger: Ledger, *, seed: int, count: int, images_per_s: float
    ) -> None:
        names = list(DELIVERIES)
        self.senders = [
            Sender(
                f"chaos-{seed}",
                n,
                names[n % len(names)],
                DELIVERIES[names[n % len(names)]](target),
                ledger,
                Random(f"{seed}/sender-{n}"),  # noqa: S311 - to be repeated
                images_per_s,
            )
            for n in range(count)
        ]
        self._threads = [Thread(target=s.run, daemon=True) for s in self.senders]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def finish(self, within_s: float) -> bool:
        """Make up no more images, and wait until those made are acknowledged; whether all are."""
        for sender in self.senders:
            sender.stop.set()
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def give_up(self) -> None:
        """Send nothing more, also of what was not acknowledged."""
        for sender in self.senders:
            sender.stop.set()
            sender.give_up.set()
