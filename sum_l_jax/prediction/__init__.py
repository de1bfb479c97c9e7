"""From videos to labels: reading, windows, scoring, drawing."""
