"""The kinds of resources: each class is everything that this tool knows of its kind."""
