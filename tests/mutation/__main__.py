"""`python -m tests.mutation`: see `tests.mutation.command`."""

if __name__ == "__main__":
    from tests.mutation.command import main

    main()
