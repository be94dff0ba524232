"""`python -m orderkit` is `orderkit`."""

from orderkit.cli import main

if __name__ == "__main__":
    main()
