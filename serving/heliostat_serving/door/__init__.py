"""The ingress of an endpoint without Ray: who may call, how much, which version answers, what is written down."""
