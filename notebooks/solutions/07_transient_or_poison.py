"""Answers to the exercises of 07_transient_or_poison."""


def kind(error):
    bugs = TypeError, AttributeError, NameError, NotImplementedError
    bad_data = ValueError, LookupError, ArithmeticError
    if hasattr(error, "reason"):
        return error.reason
    if isinstance(error, bugs):
        return "fatal"
    return "permanent" if isinstance(error, bad_data) else "transient"


def dead_share(r, q, p, k):
    return r + (1 - r) * (q + (1 - q) * p**k)
