"""Answers to the exercises of 03_did_it_arrive."""


def not_there(reports):
    return [i for i, error in enumerate(reports) if error is not None]


def most_waiting(pace, seconds, room):
    return min(room, pace * seconds)
