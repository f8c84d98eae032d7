import unittest

from common import greeting


class Greeting(unittest.TestCase):
    def test_it_names_the_service(self) -> None:
        assert greeting("api") == "hello from api"
