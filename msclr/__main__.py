"""``python -m msclr`` is the ``msclr`` command; torchrun starts it this way."""

from msclr.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
