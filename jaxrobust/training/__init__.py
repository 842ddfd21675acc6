"""Training: from a configuration to a workdir full of results; see `train.train`."""
