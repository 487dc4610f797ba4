"""What a fit looks like: figures and a page."""
