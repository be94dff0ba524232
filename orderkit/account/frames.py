"""The ledger as pandas frames; only those who want a frame load pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orderkit.account.tally import AVERAGED, FATES
from orderkit.ledger import Ledger


def ledger_frame(ledger: Ledger) -> pd.DataFrame:
    """Give all events of a ledger as a frame; columns as `Ledger.frame` says."""
    columns, dropped, earlier = ledger.rows()
    at, topic, partition, offset, order_id, price, attempt, fate, wait, reason, error = columns
    many = len(fate)
    averaged = np.array(fate, dtype=np.int64) == AVERAGED
    total = earlier.mean * earlier.count + np.cumsum(np.where(averaged, price, 0.0))
    count = earlier.count + np.cumsum(averaged)
    frame = pd.DataFrame(
        {
            "seq": np.arange(dropped, dropped + many),
            "at": np.array(at),
            "topic": pd.Categorical(topic),
            "partition": np.array(partition, dtype=np.int64),
            "offset": np.array(offset, dtype=np.int64),
            "order_id": pd.Series(order_id, dtype=object),
            "price": np.array(price),
            "attempt": np.array(attempt, dtype=np.int64),
            "fate": pd.Categorical([FATES[code] for code in fate], categories=list(FATES)),
            "wait": np.array(wait),
            "reason": pd.Series(reason, dtype=object),
            "error": pd.Series(error, dtype=object),
        }
    )
    frame["running_average"] = np.divide(total, count, out=np.full(many, np.nan), where=count > 0)
    return frame
