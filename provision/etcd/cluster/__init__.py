"""The running cluster: ways to it, health, gates, changes of members, and which cluster it is."""
