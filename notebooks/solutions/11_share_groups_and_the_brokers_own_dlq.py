"""Answers to the exercises of 11_share_groups_and_the_brokers_own_dlq."""


def word(reason, delivery, limit):
    if reason == "none":
        return "ACCEPT"
    if reason == "transient" and delivery < limit:
        return "RELEASE"
    return "REJECT"


def served(n, p, limit):
    return [n * p**i for i in range(limit)]
