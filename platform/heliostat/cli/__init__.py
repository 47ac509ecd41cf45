"""The command `helio`: one module per noun, loaded when its command runs."""
