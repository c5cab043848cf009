"""The clauses of a sampler's contract, as checks; `hdzoo.evaluation.contract` has their names."""
