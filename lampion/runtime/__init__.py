"""What serves running programs: random streams, threads."""
