"""The control plane: a Django project of small apps. Views read, services write, the link is the only way to relays."""
