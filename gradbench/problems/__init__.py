"""Problems: the data, networks and training that gradients are measured on, one TOML file each."""
