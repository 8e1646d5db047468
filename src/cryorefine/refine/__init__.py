"""Refinement: expectation and maximisation, their schedule, and the files of an iteration."""
