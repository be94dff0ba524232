"""Answers to the exercises of 13_game_day."""


def diagnose(reasons, products, span, slow):
    if slow:
        return "slow service"
    if "poison" in reasons:
        return "poison"
    if "permanent" in reasons:
        return "refusals"
    if products == 1:
        return "bad product"
    return "outage" if span < 0.5 else "flaky service"
