"""What a host is like now: each fact is one remote command."""
