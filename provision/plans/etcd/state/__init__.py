"""The state that plans for etcd start from: the members' hosts and the running cluster."""
