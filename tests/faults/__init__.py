"""Faults while operations are under way, on the lab's hosts; ``make faults`` runs them all."""
