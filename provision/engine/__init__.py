"""Plans and their runner, the run lock, and the audit log."""
