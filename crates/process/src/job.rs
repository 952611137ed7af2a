//! One program to run, and how it ended.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{group, signals};

/// Where an output stream of a program goes.
#[derive(Debug, Default)]
pub enum Sink {
    /// Collected, see [`Finished::stdout`] and [`Finished::stderr`].
    #[default]
    Collect,
    /// Thrown away.
    Discard,
    /// To this process's own stream.
    Inherit,
    /// Appended to a file.
    File(File),
}

/// A program to run.
#[derive(Debug)]
pub struct Job {
    program: OsString,
    args: Vec<OsString>,
    dir: Option<PathBuf>,
    env: Vec<(OsString, Option<OsString>)>,
    clear_env: bool,
    stdin: Vec<u8>,
    stdout: Sink,
    stderr: Sink,
    timeout: Option<Duration>,
}

/// Why a program did not run to its end. A program that ends with an exit code other than 0 is no error here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there, or cannot be executed.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program as it was asked for.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// Reading or waiting failed.
    #[error("lost contact with {program}: {source}")]
    Io {
        /// The program as it was asked for.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ran longer than its limit, and was killed.
    #[error("{program} did not end within {} s", limit.as_secs())]
    TimedOut {
        /// The program as it was asked for.
        program: String,
        /// The limit it was given.
        limit: Duration,
    },
    /// A signal asked xsplice to stop, and the program was ended.
    #[error("interrupted")]
    Interrupted,
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; 128 + N where signal N ended it.
    pub code: i32,
    /// What it wrote, where [`Sink::Collect`] was asked for.
    pub stdout: Vec<u8>,
    /// What it wrote, where [`Sink::Collect`] was asked for.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Exit code 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

impl Job {
    /// A program, looked up in PATH where it has no slash.
    pub fn new(program: impl AsRef<OsStr>) -> Job {
        Job {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            dir: None,
            env: Vec::new(),
            clear_env: false,
            stdin: Vec::new(),
            stdout: Sink::Collect,
            stderr: Sink::Collect,
            timeout: None,
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Job {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Job {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The folder to run in.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Job {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Job {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Job {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Starts from an empty environment.
    pub fn env_clear(mut self) -> Job {
        self.clear_env = true;
        self
    }

    /// What it reads on standard input; nothing by default.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Job {
        self.stdin = bytes.into();
        self
    }

    /// Where its standard output goes.
    pub fn stdout(mut self, sink: Sink) -> Job {
        self.stdout = sink;
        self
    }

    /// Where its standard error goes.
    pub fn stderr(mut self, sink: Sink) -> Job {
        self.stderr = sink;
        self
    }

    /// The longest time it may take.
    pub fn timeout(mut self, limit: Duration) -> Job {
        self.timeout = Some(limit);
        self
    }

    /// The command line, for people.
    pub fn display(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, exceeds its limit, or xsplice is asked to stop.
    pub fn run(self) -> Result<Finished, Error> {
        self.spawn()?.wait()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started, or xsplice was asked to stop.
    pub fn spawn(self) -> Result<Running, Error> {
        if signals::interrupted() {
            return Err(Error::Interrupted);
        }
        let name = self.program.to_string_lossy().into_owned();
        let failed = |source| Error::Start { program: name.clone(), source };
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        if self.clear_env {
            command.env_clear();
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(stdio(self.stdout));
        command.stderr(stdio(self.stderr));
        let (guard_end, lifeline): (PipeReader, PipeWriter) = io::pipe().map_err(failed)?;
        let guard_end = OwnedFd::from(guard_end);
        group::guard(&mut command, &guard_end);
        let started = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        drop(guard_end);
        let registered = signals::Registered::new(child.id().cast_signed());
        let stdin = self.stdin;
        if let Some(mut pipe) = child.stdin.take() {
            // A program that does not read its input to the end is not in error.
            thread::spawn(move || pipe.write_all(&stdin));
        }
        let readers = [
            child.stdout.take().map(|pipe| thread::spawn(move || collect(pipe))),
            child.stderr.take().map(|pipe| thread::spawn(move || collect(pipe))),
        ];
        let timeout = self.timeout;
        Ok(Running {
            name,
            child,
            lifeline: Some(lifeline),
            registered,
            readers,
            timeout,
            started,
            ended: None,
        })
    }
}

fn stdio(sink: Sink) -> Stdio {
    match sink {
        Sink::Collect => Stdio::piped(),
        Sink::Discard => Stdio::null(),
        Sink::Inherit => Stdio::inherit(),
        Sink::File(file) => Stdio::from(file),
    }
}

fn collect(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A program that runs. Dropping it kills its whole group.
pub struct Running {
    name: String,
    child: Child,
    lifeline: Option<PipeWriter>,
    registered: signals::Registered,
    readers: [Option<JoinHandle<io::Result<Vec<u8>>>>; 2],
    timeout: Option<Duration>,
    started: Instant,
    ended: Option<i32>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("name", &self.name)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Its exit code once it has ended, without waiting.
    ///
    /// # Errors
    /// When its limit has passed (it is killed then), or xsplice is asked to stop.
    pub fn poll(&mut self) -> Result<Option<i32>, Error> {
        if self.ended.is_none() {
            let io = |source| Error::Io { program: self.name.clone(), source };
            let status = self.child.try_wait().map_err(io)?;
            self.ended = status.map(|status| {
                use std::os::unix::process::ExitStatusExt;
                status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
            });
        }
        if signals::interrupted() {
            return Err(Error::Interrupted);
        }
        match self.timeout {
            Some(limit) if self.ended.is_none() && self.started.elapsed() > limit => {
                self.kill();
                Err(Error::TimedOut { program: self.name.clone(), limit })
            }
            _ => Ok(self.ended),
        }
    }

    /// The process number of the guard that it runs under; the program is the only child of that.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the whole group.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            group::signal(self.child.id().cast_signed(), libc::SIGKILL);
            // Only a broken wait could fail here, and then there is nothing left to wait for.
            let _ = self.child.wait();
            self.ended = Some(128 + libc::SIGKILL);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Running::poll`].
    pub fn wait(mut self) -> Result<Finished, Error> {
        let mut pause = Duration::from_millis(1);
        let code = loop {
            if let Some(code) = self.poll()? {
                break code;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        // What the program left running in its group ends with it; the pipes would stay open otherwise.
        self.lifeline = None;
        group::signal(self.child.id().cast_signed(), libc::SIGKILL);
        let [stdout, stderr] = std::mem::take(&mut self.readers);
        let read = |reader: Option<JoinHandle<io::Result<Vec<u8>>>>| match reader {
            None => Ok(Vec::new()),
            Some(handle) => match handle.join() {
                Ok(result) => result.map_err(|source| Error::Io { program: self.name.clone(), source }),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        };
        Ok(Finished { code, stdout: read(stdout)?, stderr: read(stderr)? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = &self.registered;
    }
}
