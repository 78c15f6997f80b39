"""From stored pixel values to a picture: the grey-scale and colour pipelines of PS3.4 §N.2.

`options`, `display`, `placement` and `animation` need no arrays and run in the server; `job` is
its door to the others, which run in worker processes.
"""
