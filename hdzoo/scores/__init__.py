"""What a network predicts, as a score; how it is told the noise level."""
