"""SSH to the hosts: routes, host keys, logins, secrets."""
