"""One host: what should be on it, what is on it, and the smallest change between the two."""
