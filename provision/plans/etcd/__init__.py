"""Plans for the etcd cluster: its deployment, upgrades, the leader, and authentication."""
