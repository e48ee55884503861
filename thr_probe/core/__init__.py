"""The mathematics: import its modules by name, so that numpy users never load torch."""
