"""The relay's end of the link: the directory replica and where it comes from (a file here; the console later)."""
