"""Measurements that take minutes to hours; each appends to a ledger and goes on where it stopped."""
