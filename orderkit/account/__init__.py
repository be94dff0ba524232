"""Whether it all adds up: the running average, the ledger of attempts, and three witnesses held against each other."""
