"""Plans by which members come, go and move."""
