"""The stages of a deploy: each is a `@deploy` function made of few operations, one file a stage."""
