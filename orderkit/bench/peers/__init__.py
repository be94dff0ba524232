"""The contenders, each a program of its own: `python -m peers.NAME` with this package's parent on the path."""
