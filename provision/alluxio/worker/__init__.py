"""The desired state of a worker's or master's host, and what is on the host."""
