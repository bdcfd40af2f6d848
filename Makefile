PYTHON ?= python3
VENV := .venv
.PHONY: test
$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q uv
test: $(VENV)/bin/uv
	$(VENV)/bin/uv pip install -q -p $(VENV)/bin/python -e '.[test]'
	$(VENV)/bin/python -m pytest
