"""What `rowmill doctor` asks the database, by subject. Reads only, and bounded at any size."""
