# One verb per task; dev.py does the work, and gives the same verbs where there is no make.
PYTHON ?= python3

.PHONY: setup demo test lint bench build clean
setup demo test lint bench build clean:
	@$(PYTHON) dev.py $@ $(ARGS)
