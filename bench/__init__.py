"""Every figure that the README quotes, and the program that makes it again."""
