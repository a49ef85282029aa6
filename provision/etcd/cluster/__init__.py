"""The running cluster: connections, health, gates, membership changes, and its identity."""
