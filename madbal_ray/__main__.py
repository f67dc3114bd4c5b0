"""``python -m madbal_ray``: the command line."""

from madbal_ray.cli import main

if __name__ == "__main__":
    main(prog_name="madbal")
