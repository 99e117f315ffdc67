"""The words everybody shares: frozen values with no I/O and no knowledge of any other floor."""
