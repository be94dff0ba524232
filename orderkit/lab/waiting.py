"""Waits between attempts: as promised, as measured, and what many clients do to one service with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from orderkit.account.tally import RETRY
from orderkit.lab.picture import Picture
from orderkit.lab.plots import GREY, LINES, legend, panel, theory
from orderkit.orders.faults import draw
from orderkit.retry.backoff import FORMULAS, Backoff
from orderkit.run import Run
from orderkit.show.chart import COLOURS

SLACK = 0.15  # seconds: a consumer polls at least every 0.1 s, and a machine is busy with other things too
BIN = 0.1  # seconds in one column of the herd's picture


def waits_picture(base: float, cap: float, attempts: int) -> Picture:
    """Draw all back-off formulas over the attempts; of a draw, the line is its middle and the band all it can give."""
    figure, axes = panel("failed attempt", "seconds until the next", f"base {base:g} s, cap {cap:g} s")
    x = range(1, attempts + 1)
    for name, hue in zip(FORMULAS, LINES, strict=False):
        low, middle, high = ([*_waits(Backoff(name, base, cap), attempts, u)] for u in (0.0, 0.5, 1.0))
        axes.fill_between(x, low, high, color=hue, alpha=0.12, linewidth=0)
        axes.plot(x, middle, "o-", color=hue, label=name, markersize=4)
    axes.set_xticks(x)
    legend(axes, "upper left")
    return Picture(figure)


def _waits(backoff: Backoff, attempts: int, u: float) -> Iterable[float]:
    last = 0.0
    for attempt in range(1, attempts + 1):
        last = backoff.wait(attempt, last, u)
        yield last


def measured_waits(run: Run) -> list[tuple[float, float]]:
    """Give for each retry the seconds that were promised, and those that passed until the next attempt."""
    (topic, partition, offset, at, wait, fate), _, _ = run.ledger.rows(
        "topic", "partition", "offset", "at", "wait", "fate"
    )
    open_ones: dict[tuple[str, int, int], tuple[float, float]] = {}
    found = []
    for *key, now, promised, outcome in zip(topic, partition, offset, at, wait, fate, strict=True):
        if before := open_ones.pop(tuple(key), None):
            found.append((before[1], now - before[0]))
        if outcome == RETRY:
            open_ones[tuple(key)] = now, promised
    return found


def kept(pairs: Iterable[tuple[float, float]]) -> int:
    """Count the waits that are as promised: not shorter, and not longer by more than the slack."""
    return sum(promised <= real + 1e-3 and real <= promised + SLACK for promised, real in pairs)


def measured_picture(run: Run) -> Picture:
    """Draw measured waits over promised ones: none is shorter, and the band is the kit's slack."""
    pairs = measured_waits(run)
    figure, axes = panel("seconds promised", "seconds measured", f"{len(pairs)} waits")
    most = max((promised for promised, _ in pairs), default=0.0)
    theory(axes, [0, most], [0, most], ([0, most], [SLACK, most + SLACK]), f"theory, + {SLACK:g} s")
    axes.plot(
        *np.array(pairs or [(np.nan, np.nan)]).T, "o", color=COLOURS["retry"], alpha=0.6, markersize=5, label="measured"
    )
    told = f"{kept(pairs)} of {len(pairs)} in the band"
    axes.text(0.98, 0.04, told, color=GREY, ha="right", transform=axes.transAxes)
    legend(axes, "upper left")
    return Picture(figure)


def herd(backoff: Backoff, clients: int, attempts: int, seed: int) -> np.ndarray:
    """Compute when the attempts of many clients arrive, whose first ones all fail in one moment, as all others do.

    Args:
        backoff: how each of them waits.
        clients: how many.
        attempts: of each, the first included.
        seed: decides the draws.

    Returns:
        Seconds, an array of shape (clients, attempts); the first column is 0.
    """
    times = np.zeros((clients, attempts))
    for client in range(clients):
        last = 0.0
        for attempt in range(1, attempts):
            last = backoff.wait(attempt, last, draw(seed, str(client), attempt, "herd"))
            times[client, attempt] = times[client, attempt - 1] + last
    return times


def peak(times: np.ndarray) -> int:
    """Count the arrivals in the fullest tenth of a second, the first attempts left out: nobody could spread those."""
    return int(np.bincount((times[:, 1:].ravel() / BIN + 1e-9).astype(int)).max())


def herd_picture(kinds: Sequence[str], clients: int, attempts: int, base: float, cap: float, seed: int) -> Picture:
    """Draw how many attempts of a herd arrive at the service in each tenth of a second, for some formulas."""
    some = {kind: herd(Backoff(kind, base, cap), clients, attempts, seed) for kind in kinds}
    told = ", ".join(f"{kind} {peak(times)}" for kind, times in some.items())
    figure, axes = panel("seconds since they all failed", f"attempts in {BIN:g} s", f"Peak: {told}")
    edges = np.arange(0, max(times.max() for times in some.values()) + 2 * BIN, BIN)
    for (kind, times), hue, width in zip(some.items(), LINES, (3.0, 1.5, 1.5, 1.5, 1.5), strict=False):
        arrived = np.histogram(times[:, 1:] + 1e-9, edges)[0]
        axes.step(edges[:-1], arrived, where="post", color=hue, linewidth=width, label=kind)
    middle, expected = edges[:-1] + BIN / 2, spread_out(edges, clients, attempts, base, cap)
    low, high = arrival_band(expected)
    theory(axes, middle, expected, (low, high), "full jitter, in theory")
    legend(axes, "upper right")
    return Picture(figure)


def spread_out(edges: np.ndarray, clients: int, attempts: int, base: float, cap: float) -> np.ndarray:
    """Expect how many attempts of a herd under full jitter arrive in each column.

    A client's waits are even draws from 0 to base, to 2 base, and so on; its next arrival is their sum, whose
    distribution is the convolution of theirs.

    Args:
        edges: of the columns, in seconds.
        clients: how many.
        attempts: of each, the first included.
        base: seconds, the bound of the first wait.
        cap: seconds, the bound of all.
    """
    step = BIN / 20
    total, reached, shift = np.zeros(len(edges) - 1), np.ones(1), 0.0
    for attempt in range(1, attempts):
        cells = max(1, round(Backoff("exponential", base, cap).wait(attempt) / step))
        reached, shift = np.convolve(reached, np.full(cells, 1 / cells)), shift + step / 2
        total += np.histogram(np.arange(len(reached)) * step + shift, edges, weights=reached)[0]
    return clients * total


def arrival_band(expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the band that a column's count lies in in 95 of 100 draws: two deviations of a Poisson number."""
    spread = 2 * np.sqrt(expected)
    return np.maximum(0, np.floor(expected - spread)), np.ceil(expected + spread)
