"""How fast a simulation is; run by `make bench`, never by the tests."""
