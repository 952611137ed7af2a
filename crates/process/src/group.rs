//! A process group that cannot outlive this process.
#![expect(unsafe_code, reason = "fork, kill and prctl have no safe form; each use says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sends `signal` to every process of `group`.
pub(crate) fn signal(group: i32, signal: i32) {
    // SAFETY: kill takes two integers; a group that is gone gives ESRCH, which is what we want anyway.
    unsafe {
        libc::kill(-group, signal);
    }
}

/// Lets `command` start below a guard that kills the group once the writing end of `lifeline` is closed.
///
/// The process that the caller waits for is the guard; it ends as the program ended.
pub(crate) fn guard(command: &mut Command, lifeline: &OwnedFd) {
    let lifeline = lifeline.as_raw_fd();
    // SAFETY: the closure runs between fork and exec, in a process with a single thread, and calls only
    // functions that are async-signal-safe. It allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::setpgid(0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::fork() {
                -1 => Err(io::Error::last_os_error()),
                0 => Ok(()),
                child => watch(child, lifeline),
            }
        });
    }
}

/// The guard: waits for `child` to end or `lifeline` to break. Never returns.
///
/// # Safety
/// Only in a freshly forked process: it closes every other file descriptor.
unsafe fn watch(child: i32, lifeline: i32) -> ! {
    // SAFETY: plain system calls on integers and on local variables, in a process that does nothing else.
    unsafe {
        // Among the closed ones is the pipe by which the parent learns that exec worked: it must not stay
        // open here, or the parent would wait for it until the program ends.
        for fd in 0..lifeline {
            libc::close(fd);
        }
        libc::syscall(libc::SYS_close_range, lifeline + 1, u32::MAX, 0);
        let mut ignored: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut ignored);
        libc::sigaddset(&mut ignored, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &ignored, std::ptr::null_mut());
        loop {
            let mut status = 0;
            if libc::waitpid(child, &mut status, libc::WNOHANG) == child {
                if libc::WIFEXITED(status) {
                    libc::_exit(libc::WEXITSTATUS(status));
                }
                // 128 + signal, as shells say it.
                libc::_exit(128 + libc::WTERMSIG(status));
            }
            let mut poll = libc::pollfd { fd: lifeline, events: libc::POLLIN, revents: 0 };
            if libc::poll(&mut poll, 1, 10) > 0 {
                libc::kill(0, libc::SIGKILL);
            }
        }
    }
}
