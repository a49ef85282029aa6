"""Plans for certificates and CAs."""
