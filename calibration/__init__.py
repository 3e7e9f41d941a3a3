"""The calibration of the kernel test: a corpus of models trained here, features, a fit, a report. Not shipped."""
