"""One host: its desired state, its facts, and the smallest change between the two."""
