"""Whether it all adds up: the running average, a tally of every order, and three witnesses held against each other."""
