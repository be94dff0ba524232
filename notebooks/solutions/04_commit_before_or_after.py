"""Answers to the exercises of 04_commit_before_or_after."""


def handled_twice(at, size):
    return (at - 1) % size + 1


def cents_once(deliveries):
    return sum(dict(deliveries).values())
