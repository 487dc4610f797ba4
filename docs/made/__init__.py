"""Pages made from the code, so that none of them can say what the code no longer does."""
