"""A program that says hello, in a template."""
