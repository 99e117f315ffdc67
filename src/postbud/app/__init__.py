"""Composition: the command line, the settings file, and the wiring of processes. The only floor that knows them all."""
