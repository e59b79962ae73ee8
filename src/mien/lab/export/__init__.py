"""A finished run as files of the contract: calibrated, exported, quantised, described."""
