"""What tests and benchmarks share: fixtures, real models, servers, files built by hand."""
