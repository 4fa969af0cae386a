"""A model version in a file, so that it moves between the registries of two environments, with all that is known of it.

The digests in the file find damage. They do not say who wrote it: whoever can write a file can write its digests. So
what a file says is believed of nothing but its origin. No code in it ever runs, and the side that gets it judges the
model anew, with its own gates on its own rows.
"""
