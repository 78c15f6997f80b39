"""`python -m wado`."""

from wado.cli import main

if __name__ == "__main__":
    main()
