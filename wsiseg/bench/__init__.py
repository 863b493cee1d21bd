"""How fast this machine could be, how fast it is, and what holds it back. Prints nothing; `wsiseg.cli.bench` shows it."""
