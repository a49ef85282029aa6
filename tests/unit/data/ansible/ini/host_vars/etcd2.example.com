ansible_host: 10.0.2.2
