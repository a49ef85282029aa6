"""The commands, by theme: each with its options, its help, and its parts from top to bottom, which
are observe, plan, show, apply, report.

A newcomer reads here what a command does. The modules that it calls contain the details.
"""
