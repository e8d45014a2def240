"""A fuzzer of the project's own: every reader of files, called with damaged and hostile ones, in this process.

    python -m tests.fuzz --minutes 30
    python -m tests.fuzz --reader run.json --seed 7

Each call may end in success or in one line (`UserError`). Anything else is a finding: another exception, more seconds
of processor time or more memory than are allowed, a process that dies. The file that did it is kept with its reason.

    mutate      bytes to other bytes: damage at random, and what is known to hurt (nesting, long numbers, NUL, ...)
    fixtures    the good files that damage begins from
    readers     what is read, and by which calls
    worker      one reader in a process of its own, under limits
"""
