"""How far two laws are apart, and how well a chain mixes."""
