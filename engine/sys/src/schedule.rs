//! How long the calling thread runs before the scheduler looks at others.

use core::time::Duration;
use std::io;

/// Asks for slices so short for the calling thread, of at least 100 us as Linux has them. The share of the core stays what it is; a thread
/// with a shorter slice than the one that runs is let in when it wakes up, where it has not had its share (Linux 6.12, which
/// takes `sched_runtime` of a thread without a real-time policy for this; older ones do not look at it).
///
/// # Errors
/// The system's: no such call here, or not permitted.
pub fn ask_for_slices_of(slice: Duration) -> io::Result<()> {
    let mut attributes = get()?;
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads as many bytes as `size` says, of a structure that lives on this stack.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How long the calling thread's slices are; zero where Linux does not tell (before 6.12).
///
/// # Errors
/// The system's.
pub fn slice() -> io::Result<Duration> {
    get().map(|attributes| Duration::from_nanos(attributes.sched_runtime))
}

/// What the calling thread has.
fn get() -> io::Result<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).expect("small");
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes into a structure of that size, which lives on this stack.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_keeps_its_policy_and_its_nice_value() {
        let thread = std::thread::spawn(|| {
            let before = get().expect("Linux");
            ask_for_slices_of(Duration::from_micros(100)).expect("Linux");
            let after = get().expect("Linux");
            // An older kernel tells nothing.
            assert!([0, 100_000].contains(&after.sched_runtime), "{}", after.sched_runtime);
            assert_eq!((before.sched_policy, before.sched_nice), (after.sched_policy, after.sched_nice));
        });
        thread.join().expect("no panic");
    }
}
