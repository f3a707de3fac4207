"""What is asked for: recipes, their tables and the names that they may use."""
