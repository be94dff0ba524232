"""Game day: the plan is what happens, each fault can be told from its traces, and every game can be won."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib", reason='notebooks need the extra: pip install "orderkit[lab]"')

from helpers import shared

from orderkit.account.tally import DEAD
from orderkit.errors import UsageError
from orderkit.lab import GameDay, attempts_made
from orderkit.lab.gameday import FAULTS, MOST
from orderkit.lab.ways_back import rounds_band
from orderkit.orders.order import PRODUCTS

ONE_OF_EACH = {"outage": 1, "slow service": 4, "bad product": 5, "flaky service": 7, "refusals": 8, "poison": 26}
KNOBS = {"backoff": "fixed", "backoff_base": 0.0}


def test_every_fault_comes_up() -> None:
    """A hundred seeds bring all six faults, and those of this file's list are what it says."""
    found = [GameDay(shared(), seed=seed).reveal() for seed in range(100)]
    assert set(found) == set(FAULTS) == set(ONE_OF_EACH)
    assert all(found[seed] == fault for fault, seed in ONE_OF_EACH.items())


@pytest.mark.parametrize(("fault", "seed"), ONE_OF_EACH.items())
def test_the_plan_is_what_happens_and_the_game_can_be_won(
    fault: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run gives the dead and the attempts of its plan; some knob meets both targets; a wrong name is not right."""
    game = GameDay(shared(), orders=200, seed=seed)
    wanted = game.targets()
    plans = {attempts: game.plan(attempts) for attempts in range(1, MOST + 1)}
    good = [k for k, plan in plans.items() if plan.dead <= wanted.dead and plan.attempts <= wanted.attempts]
    assert good
    run = game.play(max_attempts=good[0], **KNOBS)
    assert (run.ledger.counts[DEAD], sum(attempts_made(run))) == (plans[good[0]].dead, plans[good[0]].attempts)
    game.check(fault, run)
    assert capsys.readouterr().out.count("right") == 3
    game.check(next(name for name in FAULTS if name != fault), run)
    game.check("gremlins", run)
    game.check(..., run)
    told = capsys.readouterr().out
    assert (told.count("is not it"), told.count("is none of"), told.count("todo")) == (1, 1, 1)
    assert fault == "poison" or fault not in repr(game.evidence(run))  # a reason is no secret


def test_every_seeds_targets_can_be_met() -> None:
    """Over a hundred seeds there is always a number of attempts that meets both targets."""
    for seed in range(100):
        game = GameDay(shared(), orders=100, seed=seed)
        wanted = game.targets()
        plans = [game.plan(attempts) for attempts in range(1, MOST + 1)]
        assert any(plan.dead <= wanted.dead and plan.attempts <= wanted.attempts for plan in plans), seed


def share(game: GameDay, attempts: int) -> float:
    """Give the share of the orders that dies with so many attempts, by the closed form of the game's fault."""
    faults = game._faults
    first, last = faults.outage or (0, 0)
    down = (last - first + 1) / game.orders if attempts <= faults.outage_attempts else 0.0
    return {
        "flaky service": faults.transient_rate**attempts,
        "outage": down,
        "poison": faults.poison_rate,
        "refusals": faults.permanent_rate,
        "bad product": 1 / len(PRODUCTS),
        "slow service": 0.0,
    }[game.reveal()]


def test_the_plan_that_is_drawn_follows_the_closed_forms() -> None:
    """Over a hundred seeds n p^k and its like give the dots of the debrief: to the order, or in the band of chance."""
    sure = {"outage", "slow service"}
    games = [GameDay(shared(), orders=300, seed=seed) for seed in range(100)]
    for attempts in (1, 2, 3, 5):
        pairs = [(game, game.plan(attempts).dead) for game in games]
        assert all(dead == round(300 * share(game, attempts)) for game, dead in pairs if game.reveal() in sure)
        chance = [(dead, share(game, attempts)) for game, dead in pairs if game.reveal() not in sure]
        bands = [(dead, rounds_band(300, one)) for dead, one in chance]
        assert sum(low <= dead <= high for dead, (low, high) in bands) >= 0.88 * len(bands)
        assert sum(dead for dead, _ in chance) == pytest.approx(sum(300 * one for _, one in chance), rel=0.03)


@pytest.mark.parametrize("knobs", [{"max_attempts": 0}, {"max_attempts": 11}, {"failure_rate": 0.0}, {"seed": 3}])
def test_the_seal_holds(knobs: dict[str, float]) -> None:
    """What would break the seal, or spoil the game, is refused in a line that names it."""
    with pytest.raises(UsageError, match=next(iter(knobs))):
        GameDay(shared(), orders=20, seed=1).play(**knobs)
