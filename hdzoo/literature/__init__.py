"""Published results, found anew: one file a result, each run by ``hdzoo reproduce NAME``."""
