"""The HTTP side of the service: routes, schemas, problems, access, metrics, page."""
