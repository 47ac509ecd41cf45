"""The SDK: a `Client` for one control plane, handles instead of strings, nothing heavier than the standard library."""
