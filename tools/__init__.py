"""The scripts behind `make`, started in the project's folder: `python -m tools.NAME`.

Commands: `install` (after `preflight.sh`), `run_notebook`, `readme`, `page`, `reproduce`, `bench`,
which starts `speed` and `sample_run` in processes of their own; `chromium.sh` is for CI.
What they share: `files`, `records` (results.json and bench.json), `pictures`, `memory`,
`definitions` (the notebook as a module). `report/build.py` and `slides/build.py` use them too.
"""
