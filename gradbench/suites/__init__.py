"""What is to be measured, read from TOML, and the runner that measures it."""
