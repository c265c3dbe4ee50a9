"""News that are lost, doubled or out of order: the follower's rows are the journal's rows all the same."""

import random
from pathlib import Path

from tests.telemetry.test_following import follow
from tests.telemetry.trainers import Trainer
from tests.telemetry.waiting import until
from trainer_core.telemetry import wire
from trainer_core.telemetry.follower import Follower
from trainer_core.telemetry.journal import JournalReader


class Deaf(Follower):
    """Loses every batch of rows; heartbeats arrive. Counts what it lost, so that a test knows it was live."""

    lost_batches = 0

    def _take(self, frames: list[bytes]) -> None:
        if frames[0] == wire.TOPIC_ROWS:
            self.lost_batches += 1
        else:
            super()._take(frames)


class Noisy(Follower):
    """Loses a third of the batches, doubles a third, and keeps some back to hand them over later."""

    mistreated = 0

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self._chance, self._late = random.Random(3), list[list[bytes]]()

    def _take(self, frames: list[bytes]) -> None:
        fate = self._chance.random() if frames[0] == wire.TOPIC_ROWS else 1.0
        self.mistreated += fate < 0.6
        if fate < 0.2:
            self._late.append(frames)
            return
        if fate < 0.4:
            super()._take(frames)
        if fate >= 0.6 or fate < 0.4:
            super()._take(frames)
        while self._late and self._chance.random() < 0.5:
            super()._take(self._late.pop())


def test_a_lost_tail_is_noticed_by_the_heartbeat_and_asked_for(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer, Deaf(run_dir) as follower:
        until(lambda: follower.poll(0.1) is not None and follower.live and follower.heartbeat)
        rows = JournalReader(run_dir).rows()
        trainer.steps(50)
        follow(follower, 52, rows)
        assert follower.lost_batches > 0 and follower.live
    assert rows == JournalReader(run_dir).rows()


def test_lost_doubled_and_late_batches_come_out_whole_and_in_order(run_dir: Path) -> None:
    with Trainer(run_dir) as trainer, Noisy(run_dir) as follower:
        until(lambda: follower.poll(0.1) is not None and follower.live and follower.heartbeat)
        rows = JournalReader(run_dir).rows()
        for batch in range(1, 31):
            trainer.steps(10)
            if batch % 3 == 0:
                follow(follower, rows[-1].seq + 1, rows)
        follow(follower, 302, rows)
    assert [row.seq for row in rows] == list(range(1, 303))
    assert rows == JournalReader(run_dir).rows()
