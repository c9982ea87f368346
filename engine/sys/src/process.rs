//! What becomes of the process's memory when it crashes.

use std::io;

/// Keeps the process's memory, which holds secrets and others' data, out of core dumps and from debuggers of the same user: the process is
/// not dumpable, and its limit for core files is zero, for what the kernel pipes to a handler as well.
///
/// # Errors
/// The system's.
pub fn forbid_core_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads one rlimit, which lives on this stack.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: PR_SET_DUMPABLE takes one number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_leaves_nothing_behind() {
        forbid_core_dumps().expect("Linux");
        // SAFETY: PR_GET_DUMPABLE touches no memory.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
        let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
        let core =
            limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit of cores");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    }
}
