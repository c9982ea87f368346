//! The system's clock that also counts the time asleep.

use core::time::Duration;

/// Time since the machine started, suspended or not (`CLOCK_BOOTTIME`): `CLOCK_MONOTONIC`, and with it the standard library's,
/// stands still while the machine sleeps, and a lease that slept would outlive its peer's patience.
pub fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which lives on this stack.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert_eq!(status, 0, "Linux has had CLOCK_BOOTTIME since 2.6.39");
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::since_boot;

    #[test]
    fn it_never_goes_back_and_is_what_the_kernel_says() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let seconds: f64 = uptime.split(' ').next().and_then(|first| first.parse().ok()).expect("seconds");
        let first = since_boot();
        assert!((first.as_secs_f64() - seconds).abs() < 5.0, "{first:?} and {seconds} s");
        assert!(since_boot() >= first);
    }
}
