"""A service that comes back: waves, or clients spread over the time, and the closed forms of both, over 100 seeds."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab
from orderkit.lab.recovery import still_waiting
from orderkit.retry.backoff import Backoff

SEEDS = range(100)
ENOUGH = 88  # of 100: a band for 95 holds fewer in one of a thousand such tests
CLIENTS = 200
SERVICE = lab.Service(4.5, room=66)
JITTER = Backoff("full-jitter", 2, 2)


@pytest.mark.parametrize(("down", "room", "wait", "clients"), [(4.5, 66, 1.0, 200), (3.0, 10, 0.5, 25), (0.2, 9, 1, 9)])
def test_those_who_wait_equally_long_come_in_waves(down: float, room: int, wait: float, clients: int) -> None:
    """The last one is served when theory says, after as many attempts in all: exactly, for there is no chance in it."""
    service, backoff = lab.Service(down, room), Backoff("fixed", wait)
    found = lab.recovery(service, backoff, clients, seed=0)
    assert (found["served"].max(), found["attempts"].sum()) == lab.waves(service, wait, clients)
    assert found["served"].value_counts().max() == min(room, clients)


def test_those_who_draw_their_waits_are_served_within_the_band() -> None:
    """In 95 of 100 runs the last one is served in the band, and the attempts are as many as renewal theory says."""
    soonest, calls = lab.spread(SERVICE, JITTER.base, CLIENTS)
    runs = [lab.recovery(SERVICE, JITTER, CLIENTS, seed) for seed in SEEDS]
    assert sum(soonest[0] <= run["served"].max() <= soonest[1] for run in runs) >= ENOUGH
    totals = [int(run["attempts"].sum()) for run in runs]
    assert sum(calls[0] <= total <= calls[1] for total in totals) >= ENOUGH
    assert np.mean(totals) == pytest.approx(sum(calls) / 2, rel=0.01)


def test_the_curve_of_those_who_still_wait_lies_in_its_band() -> None:
    """At 95 of 100 places of a run the clients not served yet are as many as the band allows."""
    times = np.arange(SERVICE.down + 0.1, SERVICE.down + 2, 0.2)
    expected, half = still_waiting(SERVICE, JITTER, CLIENTS, times)
    served = [np.sort(lab.recovery(SERVICE, JITTER, CLIENTS, seed)["served"]) for seed in SEEDS]
    waiting = np.array([CLIENTS - np.searchsorted(some, times, side="right") for some in served])
    assert (abs(waiting - expected) <= half).mean() > 0.93


def test_nobody_is_served_while_the_service_is_away_or_full() -> None:
    """No tenth of a second serves more than it has room for, and none does before the service is back."""
    service = lab.Service(1.0, room=3)
    found = lab.recovery(service, Backoff("full-jitter", 0.5, 0.5), 40, seed=1)
    assert found["served"].min() >= service.down
    assert (found["served"] / 0.1 + 1e-9).astype(int).value_counts().max() == service.room
    assert found["attempts"].min() >= 2


def test_the_picture_says_when_the_last_one_is_served() -> None:
    """One line for each way to wait, and when its last client is served."""
    backoffs = {"fixed": Backoff("fixed", 1), "jitter": JITTER}
    runs = {name: lab.recovery(SERVICE, backoff, CLIENTS, 7) for name, backoff in backoffs.items()}
    picture = lab.recovery_picture(runs, SERVICE, backoffs, CLIENTS)
    assert repr(picture) == "The last one is served: fixed 8.0 s, jitter 6.2 s"
