"""Source separation: mixtures of speakers and of noise."""
