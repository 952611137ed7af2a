//! Boots a Xen in QEMU with a control domain that runs steps.
//!
//! The machine is emulated in software, with one processor and two serial ports: Xen's console, to which
//! the control domain's kernel writes too, and a port on which only the records of the steps travel. The
//! control domain is a paravirtualised one with an initial file system made here.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fs_err as fs;
use sha2::{Digest, Sha256};
use xsplice_process::{Job, Running};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::cache::WorkDir;
use crate::codes;
use crate::cpio::Archive;
use crate::debian::{DebianBoot, DebianXen, kernel};
use crate::protocol::{self, Records};
use crate::report::{BootReport, Ended, State, StepResult};
use crate::script::{Expect, Role, Step};
use crate::tools::Roots;

/// How long a boot may take unless the plan says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);
/// The most bytes that are kept of a console.
const LOG_LIMIT: usize = 8 << 20;
/// The most bytes that are kept of each stream of a step.
const STREAM_LIMIT: usize = 64 << 10;
/// How often the consoles are looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// The most that is read of a console after a panic, in bytes: a broken host may repeat itself for ever.
const LAST_BYTES: usize = 64 << 10;
/// How long the console must be quiet after a panic, and how long its last words may take at most.
const LAST_WORDS: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));
/// The modules that let programs reach the hypervisor, in the order in which they need each other.
const MODULES: &[&str] = &["xen-evtchn", "xen-privcmd", "xenfs"];

/// What is booted, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lab {
    /// The hypervisor: the ELF32 file for multiboot loaders, which may be compressed (`xen.gz`).
    pub xen: PathBuf,
    /// Folders with unpacked packages of Xen's tools, libraries and busybox; an earlier one wins.
    pub tools: Vec<PathBuf>,
    /// Linux for the control domain: vmlinux or bzImage.
    pub kernel: PathBuf,
    /// A folder that holds that kernel's modules for Xen at any depth; none if they are built in.
    pub modules: Option<PathBuf>,
    /// The emulator.
    pub qemu: PathBuf,
    /// The folder in which each boot makes a folder of its own, mode 0700, and removes it again.
    pub scratch: PathBuf,
}

impl Lab {
    /// A lab of Debian's packages, in the cache folder that they were fetched into.
    pub fn new(debian: &DebianBoot, cache: &Path) -> Lab {
        Lab {
            xen: debian.hypervisor.clone(),
            tools: vec![debian.tools_dir.clone()],
            kernel: debian.kernel.clone(),
            modules: Some(debian.modules.clone()),
            qemu: PathBuf::from("qemu-system-x86_64"),
            scratch: cache.join("boots"),
        }
    }

    /// The same with another hypervisor.
    pub fn with_xen(mut self, xen: impl Into<PathBuf>) -> Lab {
        self.xen = xen.into();
        self
    }

    /// The same with other tools; what they lack (the C library, busybox) is still taken from Debian's.
    pub fn with_tools(mut self, tools: impl Into<PathBuf>) -> Lab {
        self.tools.insert(0, tools.into());
        self
    }

    /// The same with another kernel. Modules are looked for in the root file system that the kernel lies
    /// in (`../lib/modules`); if there are none, they have to be built in.
    pub fn with_kernel(mut self, kernel: impl Into<PathBuf>) -> Lab {
        self.kernel = kernel.into();
        let beside = self.kernel.parent().map(|boot| boot.join("../lib/modules"));
        self.modules = beside.filter(|dir| dir.is_dir());
        self
    }
}

impl DebianXen {
    /// What the lab needs of it.
    pub fn boot(&self) -> DebianBoot {
        DebianBoot {
            version: self.version.clone(),
            pinned: self.pinned,
            hypervisor: self.hypervisor.clone(),
            xen_syms: self.xen_syms.clone(),
            config: self.config.clone(),
            tools_dir: self.tools_dir.clone(),
            kernel: self.kernel.clone(),
            modules: self.modules.clone(),
        }
    }
}

/// A file for the control domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanFile {
    /// Its absolute path there.
    pub path: String,
    /// Its contents.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// What one boot does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Payload files; each is `/payloads/NAME` in the control domain, under its own file name.
    pub payloads: Vec<PathBuf>,
    /// The steps, in order. All of them run, also after one that ended unexpectedly.
    pub steps: Vec<Step>,
    /// More files for the control domain, such as static programs that issue hypercalls.
    pub files: Vec<PlanFile>,
    /// More programs out of the folders of tools (`xl`, `xen-cpuid`), with their libraries.
    pub programs: Vec<String>,
    /// More kernel modules, by name without `.ko`, loaded after the usual ones.
    pub modules: Vec<String>,
    /// More words for Xen's command line.
    pub xen_args: Vec<String>,
    /// More words for the kernel's command line.
    pub kernel_args: Vec<String>,
    /// QEMU's name for the processor. `max` and the EPYC ones need SMAP off (`max,-smap`).
    pub cpu: String,
    /// How many processors; more than one is slower.
    pub cpus: u32,
    /// How long the boot may take.
    pub timeout: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            payloads: Vec::new(),
            steps: Vec::new(),
            files: Vec::new(),
            programs: Vec::new(),
            modules: Vec::new(),
            xen_args: Vec::new(),
            kernel_args: Vec::new(),
            cpu: "qemu64".to_owned(),
            cpus: 1,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl Plan {
    /// The usual exercise: probes, load each payload in order, list, probes, revert and unload each in
    /// reverse order, probes, list.
    pub fn exercise(payloads: &[PathBuf], probes: &[String]) -> Plan {
        let files: Vec<String> = payloads.iter().map(|path| file_name(path)).collect();
        let mut steps = Vec::new();
        let probe = |when: &'static str| probes.iter().map(move |probe| Step::probe(probe, when));
        steps.extend(probe("before"));
        steps.extend(files.iter().map(|file| Step::load(file)));
        steps.push(Step::list());
        steps.extend(probe("with"));
        for file in files.iter().rev() {
            let name = crate::payload_name(file);
            steps.push(Step::revert(name));
            steps.push(Step::unload(name));
        }
        steps.extend(probe("after"));
        steps.push(Step::list().named("list after"));
        Plan { payloads: payloads.to_vec(), steps, ..Plan::default() }
    }

    /// Other steps with these payloads.
    pub fn script(payloads: &[PathBuf], steps: Vec<Step>) -> Plan {
        Plan { payloads: payloads.to_vec(), steps, ..Plan::default() }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Lab {
    /// Boots and runs the plan. A step that ends unexpectedly, a panic or a time-out are results, not
    /// errors: see [`BootReport::problems`].
    ///
    /// `progress` is called with one line of text as the machine comes up and as each step begins.
    ///
    /// # Errors
    /// What keeps the machine from being started: a missing emulator or file, or an unusable plan.
    pub fn boot(&self, plan: &Plan, progress: &dyn Fn(&str)) -> Result<BootReport, Problems> {
        let work = WorkDir::new(&self.scratch)?;
        let dir = work.path();
        fs::write(dir.join("xen"), self.xen_image()?).map_err(codes::io)?;
        self.put_kernel(&dir.join("vmlinux"))?;
        let archive = self.file_system(plan)?;
        let nonce = nonce_of(&archive);
        let initrd = with_conf(archive, &nonce, plan.steps.len());
        fs::write(dir.join("initrd"), initrd.to_bytes()).map_err(codes::io)?;
        for log in ["xen.log", "dom0.log"] {
            fs::write(dir.join(log), "").map_err(codes::io)?;
        }
        progress("booting Xen in QEMU");
        let started = Instant::now();
        let machine = self.job(plan, dir).spawn().map_err(|error| missing_qemu(codes::job(error)))?;
        let mut watch = Watch::new(dir, &nonce, plan, progress)?;
        let ended = watch.until_end(machine)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(watch.report(plan, ended, seconds))
    }

    fn xen_image(&self) -> Result<Vec<u8>, Problems> {
        let image = fs::read(&self.xen).map_err(codes::io)?;
        let wrong = |what: &str| -> Problems {
            Diagnostic::new(codes::XEN_UNREADABLE, what)
                .at(Place::file(self.xen.display().to_string()))
                .why("QEMU loads Xen as a multiboot kernel, which is an ELF file of 32 bits.")
                .advice("Give xen/xen or xen/xen.gz of a build, or xen-VERSION-amd64.gz of a package.")
                .into()
        };
        if image.starts_with(b"MZ") {
            return Err(wrong("this is a hypervisor for EFI"));
        }
        let image = kernel::decompress(&image, "the hypervisor").map_err(|problems| {
            let unknown = codes::any(&problems, codes::IMAGE_UNREADABLE);
            if unknown { wrong("this is no hypervisor image, compressed or not") } else { problems }
        })?;
        // EI_CLASS: 1 is 32 bits.
        if image.get(4) == Some(&1) { Ok(image) } else { Err(wrong("this is an ELF file of 64 bits")) }
    }

    /// The kernel goes into the machine's folder under a plain name: QEMU splits its module list at
    /// spaces and commas.
    fn put_kernel(&self, to: &Path) -> Result<(), Problems> {
        let image = fs::read(&self.kernel).map_err(codes::io)?;
        if image.starts_with(b"\x7fELF") {
            let real = fs::canonicalize(&self.kernel).map_err(codes::io)?;
            return std::os::unix::fs::symlink(real, to).map_err(codes::io);
        }
        fs::write(to, kernel::vmlinux(&image, &self.kernel)?).map_err(codes::io)
    }

    fn file_system(&self, plan: &Plan) -> Result<Archive, Problems> {
        let mut archive = Archive::new();
        for dir in ["dev", "proc", "sys", "tmp", "sbin", "usr/bin", "usr/sbin", "lab/modules", "lab/steps"] {
            archive.dir(dir);
        }
        // For what goes wrong before devtmpfs is there.
        archive.char_device("dev/console", 0o600, 5, 1);
        archive.char_device("dev/null", 0o666, 1, 3);
        let roots = Roots::open(&self.tools)?;
        let mut names = vec!["busybox".to_owned(), "xen-livepatch".to_owned()];
        names.extend(plan.programs.iter().cloned());
        let programs = roots.programs(&names)?;
        for program in programs.programs {
            let dir = if program.name == "busybox" { "bin" } else { "sbin" };
            archive.file(&format!("{dir}/{}", program.name), 0o755, program.data);
        }
        for library in programs.libraries {
            archive.file(&format!("lib/x86_64-linux-gnu/{}", library.name), 0o755, library.data);
        }
        for interpreter in programs.interpreters {
            archive.file(&interpreter.name, 0o755, interpreter.data);
        }
        self.add_modules(plan, &mut archive)?;
        add_payloads(plan, &mut archive)?;
        for (number, step) in (1..).zip(&plan.steps) {
            archive.file(&format!("lab/steps/{number}"), 0o644, format!("{}\n", step.command));
        }
        archive.file("lab/setup", 0o644, include_str!("setup.sh"));
        archive.file("init", 0o755, include_str!("init.sh"));
        for file in &plan.files {
            let path = Path::new(file.path.trim_matches('/'));
            let climbs = path.components().any(|part| !matches!(part, std::path::Component::Normal(_)));
            if climbs || file.path.trim_matches('/').is_empty() || archive.contains(&file.path) {
                let what = format!("{} cannot be a file of the plan", file.path);
                return Err(Diagnostic::new(codes::PLAN_UNUSABLE, what)
                    .why("It is taken by the lab itself, or no plain path.")
                    .advice("Choose another path.")
                    .into());
            }
            archive.file(&file.path, file.mode, file.data.clone());
        }
        Ok(archive)
    }

    fn add_modules(&self, plan: &Plan, archive: &mut Archive) -> Result<(), Problems> {
        let Some(dir) = &self.modules else { return Ok(()) };
        let roots = Roots::open(std::slice::from_ref(dir))?;
        let names = MODULES.iter().copied().chain(plan.modules.iter().map(String::as_str));
        for (number, name) in names.enumerate() {
            let packed = ["", ".xz", ".zst", ".gz"].map(|tail| format!("{name}.ko{tail}"));
            let Some(data) = packed.iter().find_map(|file| roots.read(file)) else {
                return Err(Diagnostic::new(codes::TOOLS_INCOMPLETE, format!("there is no module {name}"))
                    .at(Place::file(dir.display().to_string()))
                    .advice("Give the folder lib/modules of the kernel's package.")
                    .into());
            };
            let data = kernel::decompress(&data, &format!("the module {name}"))?;
            // The number keeps the order: the shell sorts them by name.
            archive.file(&format!("lab/modules/{number:03}-{name}.ko"), 0o644, data);
        }
        Ok(())
    }

    fn job(&self, plan: &Plan, dir: &Path) -> Job {
        let mut xen = "console=com1 com1=115200,8n1 dom0_mem=256M loglvl=all guest_loglvl=all".to_owned();
        let mut kernel = "console=hvc0 panic=1 loglevel=4".to_owned();
        for (line, words) in [(&mut xen, &plan.xen_args), (&mut kernel, &plan.kernel_args)] {
            for word in words {
                line.push(' ');
                line.push_str(word);
            }
        }
        // A comma ends a module's description unless it is doubled.
        let modules = format!("vmlinux {},initrd", kernel.replace(',', ",,"));
        Job::new(&self.qemu)
            .args(["-accel", "tcg", "-machine", "q35", "-cpu", &plan.cpu, "-m", "384"])
            .args(["-smp", &plan.cpus.to_string(), "-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-serial", "file:xen.log", "-serial", "file:dom0.log"])
            .args(["-kernel", "xen", "-append", &xen, "-initrd", &modules])
            .dir(dir)
    }
}

/// Whatever name the emulator was given, the package is the same.
fn missing_qemu(mut problems: Problems) -> Problems {
    for problem in problems.0.iter_mut().filter(|problem| problem.code == codes::TOOL_MISSING) {
        problem.advice = "On Debian, `apt-get install qemu-system-x86` provides it.".to_owned();
    }
    problems
}

fn add_payloads(plan: &Plan, archive: &mut Archive) -> Result<(), Problems> {
    let mut taken = BTreeSet::new();
    archive.dir("payloads");
    for path in &plan.payloads {
        let name = file_name(path);
        if !taken.insert(name.clone()) {
            let what = format!("two payloads are both named {name}");
            return Err(Diagnostic::new(codes::PLAN_UNUSABLE, what)
                .at(Place::file(path.display().to_string()))
                .why("The hypervisor names a payload after its file, and refuses a second one of a name.")
                .advice("Rename one of the files.")
                .into());
        }
        archive.file(&format!("payloads/{name}"), 0o644, fs::read(path).map_err(codes::io)?);
    }
    Ok(())
}

/// Six characters that nothing on the consoles contains by chance: from everything that is booted.
fn nonce_of(archive: &Archive) -> String {
    let hash = Sha256::digest(archive.to_bytes());
    hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect()
}

fn with_conf(mut archive: Archive, nonce: &str, steps: usize) -> Archive {
    let conf = format!("NONCE={nonce}\nSTEPS={steps}\nLIMIT={STREAM_LIMIT}\n");
    archive.file("lab/conf", 0o644, conf);
    archive
}

/// A log file that grows, and what was read of it.
struct Log {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Log {
    /// Reads what is new; returns whether there was any.
    fn read_on(&mut self) -> Result<bool, Problems> {
        let mut file = fs::File::open(&self.path).map_err(codes::io)?;
        file.seek(SeekFrom::Start(self.bytes.len() as u64)).map_err(codes::io)?;
        let room = (LOG_LIMIT + 1).saturating_sub(self.bytes.len());
        let before = self.bytes.len();
        file.take(room as u64).read_to_end(&mut self.bytes).map_err(codes::io)?;
        Ok(self.bytes.len() > before)
    }
}

/// Watches a machine.
struct Watch<'a> {
    xen: Log,
    dom0: Log,
    nonce: &'a str,
    plan: &'a Plan,
    progress: &'a dyn Fn(&str),
    started: Instant,
    said: usize,
    /// Up to where Xen's console was searched for panics.
    searched: usize,
}

impl<'a> Watch<'a> {
    fn new(
        dir: &Path,
        nonce: &'a str,
        plan: &'a Plan,
        progress: &'a dyn Fn(&str),
    ) -> Result<Watch<'a>, Problems> {
        let log = |name| Log { path: dir.join(name), bytes: Vec::new() };
        Ok(Watch {
            xen: log("xen.log"),
            dom0: log("dom0.log"),
            nonce,
            plan,
            progress,
            started: Instant::now(),
            said: 0,
            searched: 0,
        })
    }

    /// Returns once the machine has ended, or was stopped: it goes with its value.
    fn until_end(&mut self, mut machine: Running) -> Result<Ended, Problems> {
        loop {
            let code = machine.poll().map_err(codes::job)?;
            let grown = self.xen.read_on()?;
            if self.dom0.read_on()? {
                self.say_progress();
            }
            if grown && let Some(line) = self.new_panic() {
                self.last_words(&mut machine)?;
                return Ok(Ended::Panic { line });
            }
            if self.xen.bytes.len() > LOG_LIMIT || self.dom0.bytes.len() > LOG_LIMIT {
                return Ok(Ended::LogOverflow { limit: LOG_LIMIT as u64 });
            }
            if let Some(code) = code {
                return self.exited(code, machine);
            }
            if self.started.elapsed() > self.plan.timeout {
                return Ok(Ended::TimedOut { limit: self.plan.timeout.as_secs() });
            }
            thread::sleep(PAUSE);
        }
    }

    fn exited(&mut self, code: i32, machine: Running) -> Result<Ended, Problems> {
        let finished = machine.wait().map_err(codes::job)?;
        // What was written between the last look and the end.
        self.xen.read_on()?;
        self.dom0.read_on()?;
        if self.records().done && code == 0 {
            return Ok(Ended::PowerOff);
        }
        match self.new_panic() {
            Some(line) => Ok(Ended::Panic { line }),
            None => Ok(Ended::Exited { code, message: codes::tail_of(&finished.stderr, 4) }),
        }
    }

    fn records(&self) -> Records {
        protocol::records(&self.dom0.bytes, self.nonce)
    }

    /// Looks at the complete lines that were not searched yet.
    fn new_panic(&mut self) -> Option<String> {
        let fresh = &self.xen.bytes[self.searched..];
        let end = fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = protocol::panic_line(&String::from_utf8_lossy(&fresh[..end]));
        self.searched += end;
        line
    }

    /// Lets a panic finish its trace.
    fn last_words(&mut self, machine: &mut Running) -> Result<(), Problems> {
        let (quiet, at_most) = LAST_WORDS;
        let (start, mut grew) = (Instant::now(), Instant::now());
        let enough = LOG_LIMIT.min(self.xen.bytes.len() + LAST_BYTES);
        while grew.elapsed() < quiet && start.elapsed() < at_most && self.xen.bytes.len() < enough {
            let over = machine.poll().map_err(codes::job)?.is_some();
            if self.xen.read_on()? {
                grew = Instant::now();
            } else if over {
                break;
            }
            thread::sleep(PAUSE);
        }
        self.dom0.read_on().map(|_| ())
    }

    /// Says which steps have begun since the last time.
    fn say_progress(&mut self) {
        let begun = self.records().steps.len();
        for number in self.said..begun {
            // Record 0 is the set-up.
            if let Some(step) = number.checked_sub(1).and_then(|index| self.plan.steps.get(index)) {
                (self.progress)(&format!("step {number} of {}: {}", self.plan.steps.len(), step.name));
            }
        }
        self.said = self.said.max(begun);
    }

    fn report(self, plan: &Plan, ended: Ended, seconds: f64) -> BootReport {
        let records = self.records();
        let result = |number: usize, step: &Step| {
            let mut result = StepResult::not_run(step);
            let Some(record) = records.steps.iter().find(|record| record.number == number) else {
                return result;
            };
            result.state = if record.code.is_some() { State::Ended } else { State::Cut };
            result.exit_code = record.code;
            result.as_expected = record.code.is_some_and(|code| step.expect.allows(code));
            result.stdout = record.stdout.clone();
            result.stderr = record.stderr.clone();
            result.console = protocol::console_of(&self.xen.bytes, self.nonce, number);
            result
        };
        let set_up = Step {
            name: "set up the control domain".to_owned(),
            role: Role::SetUp,
            command: "sh /lab/setup".to_owned(),
            expect: Expect::Success,
        };
        BootReport {
            set_up: result(0, &set_up),
            steps: (1..).zip(&plan.steps).map(|(number, step)| result(number, step)).collect(),
            ended,
            seconds,
            xen_log: String::from_utf8_lossy(&self.xen.bytes).into_owned(),
            dom0_log: String::from_utf8_lossy(&self.dom0.bytes).into_owned(),
        }
    }
}

#[cfg(test)]
#[path = "lab_tests.rs"]
mod tests;
