import unittest

from job import work


class Work(unittest.TestCase):
    def test_it_ends(self) -> None:
        assert work(1) == 0
        assert work(27) == 111
