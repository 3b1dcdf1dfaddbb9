"""Variants of mixture-of-experts layers: routers, auxiliary losses, freezing, initialisation and placement."""
