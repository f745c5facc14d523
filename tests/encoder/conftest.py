"""The tiny data and runs of the tests of evaluation."""

from tests.evaluation.conftest import data, folders, run  # noqa: F401
