"""Plans: what an account may send, keep and make."""
