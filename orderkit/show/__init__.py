"""What others see of a run: the terminal, the chart, tables, logs and metrics."""
