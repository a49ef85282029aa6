"""Ansible inventories, read for what they say of hosts; nothing in them is evaluated."""
