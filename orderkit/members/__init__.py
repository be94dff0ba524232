"""Where records come from: a member of a consumer group, its commits, its lag, and how it leaves."""
