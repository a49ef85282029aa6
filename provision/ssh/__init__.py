"""How hosts are reached by SSH: the way there, host keys, logins, secrets."""
