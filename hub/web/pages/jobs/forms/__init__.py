"""The forms that start jobs, one a kind. Each is a list of controls, which convert between what is typed and the JSON of a request."""
