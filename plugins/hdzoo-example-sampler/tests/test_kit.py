from hdzoo.testing import test_sampler as test_sampler
