"""Measurements that take minutes to hours; each appends to a ledger and resumes from it."""
