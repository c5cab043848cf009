from hdzoo.verification.testing import test_sampler as test_sampler
