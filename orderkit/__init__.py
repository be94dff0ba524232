"""Learn retries and dead letters on Kafka: one small, honest system that accounts for every order."""
