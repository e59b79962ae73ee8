"""Output of programs that tests start."""

import subprocess


def rest_of(job: "subprocess.Popen[str]") -> tuple[str, str]:
    """The rest of what ``job`` writes to standard output and standard error, until it ends.

    ``job.communicate()`` does not work after a ``readline``: it bypasses the reader's buffer. Standard error must be
    short, because it is read last.
    """
    assert job.stdout is not None
    assert job.stderr is not None
    with job.stdout, job.stderr:
        output, errors = job.stdout.read(), job.stderr.read()
    job.wait(timeout=60)
    return output, errors
