"""Alluxio's own commands, run on a worker's host."""
