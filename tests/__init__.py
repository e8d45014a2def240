"""What every test may wait for: never a measure of how fast something is."""

PATIENCE = 600  # seconds until something that does not come is given up, however busy the machine is
