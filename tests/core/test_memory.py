"""The switch that keeps freed memory."""

import platform

from pocketcortex.core import keep_freed_memory


def test_glibc_takes_the_switch_and_others_decline() -> None:
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
