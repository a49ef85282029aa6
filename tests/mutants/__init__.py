"""Mutants of the code that decides on ordering, gates and quorums: which count, and the results."""
