"""Read what was handed in: archives of any LMS, folders, notebooks that may be anything."""
