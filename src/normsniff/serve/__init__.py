"""The page and the service: dropped files, uploads, URLs, answered by workers under limits."""
