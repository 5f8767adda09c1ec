"""``python -m facescale``: what torchrun starts."""

from facescale.cli import main

if __name__ == "__main__":
    main()
