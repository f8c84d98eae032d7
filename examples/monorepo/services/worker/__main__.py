"""Works, and says so."""

from common import greeting
from job import work

print(greeting("worker"), "after", work(20), "steps")
