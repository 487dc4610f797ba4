"""The documentation: pages by hand in `pages/`, pages made from the code, and how a site is built of both."""
