"""Postbud: an outbound mail relay that loses nothing and keeps its own spam policy by code."""
