"""Orders: random ones, their bytes, and the faults that decide what becomes of each."""
