"""The ledger as pandas frames; only those who want a frame load pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orderkit.ledger import AVERAGED, FATES, Ledger


def ledger_frame(ledger: Ledger) -> pd.DataFrame:
    """Give all events of a ledger as a frame; columns as `Ledger.frame` says."""
    many = len(ledger)  # the worker may append while we read: every column is at least this long
    fate = np.array(ledger.fate[:many], dtype=np.int64)
    price = np.array(ledger.price[:many], dtype=float)
    averaged = fate == AVERAGED
    total = np.cumsum(np.where(averaged, price, 0.0))
    count = np.cumsum(averaged)
    frame = pd.DataFrame(
        {
            "seq": np.arange(ledger.dropped, ledger.dropped + many),
            "at": np.array(ledger.at[:many]),
            "topic": pd.Categorical(ledger.topic[:many]),
            "partition": np.array(ledger.partition[:many], dtype=np.int64),
            "offset": np.array(ledger.offset[:many], dtype=np.int64),
            "order_id": pd.Series(ledger.order_id[:many], dtype=object),
            "price": price,
            "attempt": np.array(ledger.attempt[:many], dtype=np.int64),
            "fate": pd.Categorical([FATES[code] for code in fate], categories=list(FATES)),
            "wait": np.array(ledger.wait[:many]),
            "reason": pd.Series(ledger.reason[:many], dtype=object),
            "error": pd.Series(ledger.error[:many], dtype=object),
        }
    )
    frame["running_average"] = np.divide(total, count, out=np.full(many, np.nan), where=count > 0)
    return frame
