"""The plan of each operation: steps, changes and gates. Each task has a module of its own."""
