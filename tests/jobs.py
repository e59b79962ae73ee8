"""Programs that tests start, read from and end."""

import subprocess


def rest_of(job: "subprocess.Popen[str]") -> tuple[str, str]:
    """What ``job`` still writes to both its pipes, to its end.

    After a ``readline`` this is not ``job.communicate()``: that reads the pipe itself, past the lines which the reader
    has already taken from it. Standard error must be short, as it is read last.
    """
    assert job.stdout is not None
    assert job.stderr is not None
    with job.stdout, job.stderr:
        output, errors = job.stdout.read(), job.stderr.read()
    job.wait(timeout=60)
    return output, errors
