"""A local web page for one environment: live charts, releases, objectives, the seed, load runs.

It looks and acts by the same code as the commands. `guard` decides who may ask, `view` what is
shown, both pure; `watch`, `jobs` and `desk` have the effects; `app` and `server` are the web part.
"""
