"""Many runs: suites, cross-validation, reports on one axis."""
