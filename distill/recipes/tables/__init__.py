"""The tables of a recipe, one a file. Imports no torch."""
