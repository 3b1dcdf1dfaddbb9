"""What may vary, as data. Imports nothing but the trainables' settings."""
