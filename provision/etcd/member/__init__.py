"""One member: its host as resources, its timer and backups, and the changes of the membership."""
