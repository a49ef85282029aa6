"""One member: its host as resources, its timer and backups, and how members differ."""
