"""Ansible inventories: reads their hosts and variables, and evaluates nothing in them."""
