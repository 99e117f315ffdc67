"""People and accounts: who may do what, sign-in, invitations, and the audit log."""
