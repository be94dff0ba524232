"""How fast a replay sends letters back, from the times of the records that it has written."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from orderkit.dead_letters import read_topic
from orderkit.dead_letters.dialects import REPLAY_COUNT
from orderkit.dead_letters.story import header_list
from orderkit.lab.bench import Bench
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.replay.job import BEAT
from orderkit.show.chart import COLOURS

LATE = 1.2, 0.5  # a machine that is busy takes so many times as long, and so many seconds more


def sent_back(shop: Bench, many: int) -> np.ndarray:
    """Give the times of the newest records that a replay has written into the topic of orders.

    Args:
        shop: whose topic.
        many: how many of them.

    Returns:
        Seconds since the first of them, in order; shape (many,), float64, as exact as a millisecond.
    """
    replayed = [
        message.timestamp()[1]
        for message in read_topic(shop.connection, shop.topic)
        if any(name == REPLAY_COUNT for name, _ in header_list(message))
    ]
    times = np.sort(np.asarray(replayed, np.float64))[-many:]
    return (times - times[:1]) / 1000


def pace_band(seconds: ArrayLike, many: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the band for the letters that are back after some time: not more than the rate allows, and not many fewer.

    A replay writes what the rate allows for a beat at once, so it may be a beat ahead.

    Args:
        seconds: since the first letter.
        many: letters in all.
        rate: letters per second.
    """
    factor, more = LATE
    times = np.asarray(seconds, np.float64)
    low, high = rate * (times - more) / factor, rate * (times + BEAT)
    return np.clip(low, 0, many), np.clip(high, 1, many)


def pace_picture(shop: Bench, many: int, rate: float) -> Picture:
    """Draw how many letters were back after so many seconds, against min(rate t, n), with the band of `pace_band`.

    Args:
        shop: whose topic.
        many: n, the letters that the last replay has moved.
        rate: letters per second.
    """
    times = sent_back(shop, many)
    told = f"{many:,} letters at {rate:,} a second: n / r = {many / rate:.1f} s"
    figure, axes = panel("seconds since the first", "letters sent back", told, left=0.12)
    x = np.linspace(0, max(times.max(initial=0), many / rate) * 1.1, 200)
    theory(axes, x, np.minimum(rate * x, many), pace_band(x, many, rate), "theory: min(r t, n)")
    axes.step(times, np.arange(1, len(times) + 1), where="post", color=COLOURS["replayed"], label="measured")
    legend(axes, "lower right")
    return Picture(figure)
