"""The clauses of a sampler's contract, as checks; `hdzoo.verification.contract` has their names."""
