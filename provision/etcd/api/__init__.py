"""etcd's v3 API: the client, its messages, values and errors."""
