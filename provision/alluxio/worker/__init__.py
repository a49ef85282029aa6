"""What a worker's or master's host should look like, and what is on it."""
