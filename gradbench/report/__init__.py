"""The report of a directory of results: one HTML file that works offline."""
