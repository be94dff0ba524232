"""What a consumer is made of: its loop, delivery attempts, a partition's records and state, and what a commit saves."""
