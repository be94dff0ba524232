"""A service comes back, and all who wait for it come at once, or do not: how soon each is served, and at what price."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import pandas as pd

from orderkit.lab.picture import Picture
from orderkit.lab.plots import LINES, legend, panel, theory
from orderkit.lab.waiting import BIN
from orderkit.orders.faults import draw
from orderkit.retry.backoff import Backoff


@dataclass(frozen=True)
class Service:
    """A service that is away, and then serves so many calls in each tenth of a second; the others fail.

    Args:
        down: seconds until it is there.
        room: calls in a tenth of a second.
    """

    down: float
    room: int


def recovery(service: Service, backoff: Backoff, clients: int, seed: int) -> pd.DataFrame:
    """Let many clients call a service that is away, and go on until each is served.

    Args:
        service: what they call. All first calls come at 0 seconds, and fail.
        backoff: how each of them waits; nobody gives up.
        clients: how many.
        seed: decides the draws.

    Returns:
        A row for each client: `served` (float, seconds) and `attempts` (int, the last one included).
    """
    served, attempts = np.zeros(clients), np.zeros(clients, int)
    taken: Counter[int] = Counter()  # calls that were served, by tenth of a second
    calls = [(0.0, client, 0.0) for client in range(clients)]  # when, who, and the wait before
    while calls:
        now, client, last = heapq.heappop(calls)
        attempts[client] += 1
        tenth = int(now / BIN + 1e-9)
        if now >= service.down and taken[tenth] < service.room:
            taken[tenth] += 1
            served[client] = now
        else:
            attempt = int(attempts[client])
            wait = backoff.wait(attempt, last, draw(seed, str(client), attempt, "recovery"))
            heapq.heappush(calls, (now + wait, client, wait))
    return pd.DataFrame({"served": served, "attempts": attempts})


def waves(service: Service, wait: float, clients: int) -> tuple[float, int]:
    """Say when the last client is served, and how many attempts that takes, if all wait equally long.

    They come together. Of each wave `room` are served, and the others wait once more:
    `ceil(down / wait) + ceil(clients / room) - 1` waits in all.
    """
    failed, needed = ceil(service.down / wait - 1e-9), ceil(clients / service.room)
    total = clients * failed + sum(clients - i * service.room for i in range(needed))
    return (failed + needed - 1) * wait, total


def spread(service: Service, longest: float, clients: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Say the same if each wait is a draw from 0 to `longest`: bands that hold 95 of 100 runs.

    Renewal theory: after some waits a client's next call comes `x` seconds later or more with probability
    (1 - x / longest)², and until then it has made 2 down / longest + 2/3 calls on average, with a variance of
    2 down / (3 longest) + 2/9. That is so as long as the service has room for all who come.
    """
    low, high = (longest * (1 - sqrt(1 - share ** (1 / clients))) for share in (0.025, 0.975))
    mean = clients * (2 * service.down / longest + 2 / 3 + 1)
    deviation = sqrt(clients * (2 * service.down / (3 * longest) + 2 / 9))
    return (service.down + low, service.down + high), (mean - 2 * deviation, mean + 2 * deviation)


def still_waiting(service: Service, backoff: Backoff, clients: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expect how many clients are not served yet, and half the width of the band that holds 95 of 100 runs.

    Args:
        service: what they call.
        backoff: fixed, or full jitter whose bound does not grow.
        clients: how many.
        times: seconds.
    """
    if not backoff.is_drawn:
        first = ceil(service.down / backoff.base - 1e-9)
        passed = np.floor(times / backoff.base + 1e-9) - first + 1
        return np.maximum(0, clients - service.room * np.maximum(0, passed)), np.zeros(len(times))
    share = (1 - np.clip((times - service.down) / backoff.base, 0, 1)) ** 2
    return clients * share, 2 * np.sqrt(clients * share * (1 - share))


def recovery_picture(
    runs: Mapping[str, pd.DataFrame], service: Service, backoffs: Mapping[str, Backoff], clients: int
) -> Picture:
    """Draw how many clients wait for a service that comes back, against theory.

    Args:
        runs: what `recovery` gave, by name.
        service: what they called.
        backoffs: how they waited, by the same names.
        clients: how many there were.
    """
    figure, axes = panel("seconds since they all failed", "clients not served yet", "")
    end = max(float(run["served"].max()) for run in runs.values())
    times = np.arange(0, end + 2 * BIN, BIN / 5)
    for (name, run), hue, label in zip(runs.items(), LINES, ["theory", *["_"] * len(runs)], strict=False):
        waiting = clients - np.searchsorted(np.sort(run["served"]), times, side="right")
        expected, half = still_waiting(service, backoffs[name], clients, times)
        theory(axes, times, expected, (np.maximum(0, expected - half), expected + half), label)
        axes.step(times, waiting, where="post", color=hue, label=name)
    told = ", ".join(f"{name} {run['served'].max():.1f} s" for name, run in runs.items())
    axes.set_title(f"The last one is served: {told}")
    axes.axvline(service.down, color=LINES[2], linewidth=1, label="the service is back")
    legend(axes, "upper right")
    return Picture(figure)
