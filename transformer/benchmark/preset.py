"""The recipe of `--preset`: nothing but the defaults, in which the command line chooses the preset."""

from transformer.config import default_config

get_config = default_config
