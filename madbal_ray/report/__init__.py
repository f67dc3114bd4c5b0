"""Statistics over seeds, charts, pictures, the page."""
