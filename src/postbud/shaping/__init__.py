"""Shaping: when and how much, decided purely. Clock and dice are arguments."""
