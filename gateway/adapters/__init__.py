"""Agent frameworks that can be changed, on the gate without a proxy: each an example to copy from."""
