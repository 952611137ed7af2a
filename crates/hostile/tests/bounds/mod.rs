//! What the tests measure and limit.

use std::time::Duration;

/// Bytes of addresses that a test program may have: more than it needs, and less than a file asks for that is believed.
const MEMORY: u64 = 2 << 30;

/// Limits the memory of this program.
pub fn limit_memory() {
    let limit = rustix::process::Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("a limit");
}

/// The time that this thread has had of a processor: what others do on the machine does not count.
pub fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
