//! What a command that is run gets to see, and the programs that can give it that.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use layerstone::Error;
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

/// The capabilities that Docker gives a container.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The programs that can run a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// bubblewrap, `bwrap`
    Bubblewrap,
    /// crun, as root only
    Crun,
}

/// A command, and what it gets to see. The mount points are there.
pub(super) struct Sandbox<'a> {
    /// Its root directory.
    pub(super) root: &'a Path,
    pub(super) hostname: &'a str,
    /// Files of the host, and where they are to be seen.
    pub(super) files: Vec<(PathBuf, PathBuf)>,
    pub(super) proc: PathBuf,
    pub(super) dev: PathBuf,
    pub(super) sys: PathBuf,
    pub(super) directory: &'a Path,
    pub(super) environment: Vec<(String, OsString)>,
    pub(super) command: &'a [OsString],
    /// A directory for the runtime's own files.
    pub(super) scratch: &'a Path,
}

/// Where a runtime tells what became of the command.
const STATUS: &str = "status";

/// How long a runtime may take to have its namespaces.
const LONGEST_START: Duration = Duration::from_secs(1);

/// What is to be started, and a file that it inherits.
pub(super) struct Prepared {
    pub(super) command: Command,
    _inherited: Option<File>,
}

/// A runtime that was found.
pub(super) struct Found {
    runtime: Runtime,
    path: PathBuf,
}

impl Runtime {
    fn program(self) -> &'static str {
        match self {
            Self::Bubblewrap => "bwrap",
            Self::Crun => "crun",
        }
    }

    /// The one that is wanted, or the first that is installed.
    pub(super) fn find(wanted: Option<Self>) -> Result<Found, Error> {
        let is_root = rustix::process::geteuid().is_root();
        let candidates = [Self::Bubblewrap, Self::Crun].into_iter();
        let candidates = candidates.filter(|candidate| wanted.is_none_or(|wanted| wanted == *candidate));
        let mut candidates = candidates.filter(|candidate| *candidate == Self::Bubblewrap || is_root);
        let found = candidates.find_map(|runtime| Some(Found { runtime, path: find(runtime.program())? }));
        found.ok_or_else(|| {
            let what = match wanted {
                None if is_root => "neither bubblewrap nor crun is installed",
                None | Some(Self::Bubblewrap) => "bubblewrap is not installed",
                Some(Self::Crun) if is_root => "crun is not installed",
                Some(Self::Crun) => "crun is for root only; use bubblewrap",
            };
            let package = if wanted == Some(Self::Crun) && is_root { "crun" } else { "bubblewrap" };
            Error::unavailable("run", format!("{what}; on Debian: apt-get install {package}"))
        })
    }
}

/// Where a program is: found before the environment is the command's.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

impl Found {
    /// How to start it. It ends when this process does, and so does all that it started.
    pub(super) fn prepare(&self, sandbox: &Sandbox<'_>) -> Result<Prepared, Error> {
        match self.runtime {
            Runtime::Bubblewrap => sandbox.bubblewrap(&self.path),
            Runtime::Crun => sandbox.crun(&self.path),
        }
    }

    /// Whether the command was started, or something failed before.
    pub(super) fn has_started(&self, scratch: &Path) -> bool {
        let told = told(scratch);
        match self.runtime {
            // It tells the exit code of what it has executed.
            Runtime::Bubblewrap => told.contains("\"exit-code\""),
            // It tells the process.
            Runtime::Crun => !told.is_empty(),
        }
    }

    /// Waits a while until the command's processes end with the runtime's.
    pub(super) fn wait_until_up(&self, scratch: &Path) {
        let deadline = Instant::now() + LONGEST_START;
        // Of crun they do from the beginning; bubblewrap says so when they do.
        while self.runtime == Runtime::Bubblewrap && told(scratch).is_empty() && Instant::now() < deadline {
            std::thread::sleep(LONGEST_START / 100);
        }
        std::thread::sleep(LONGEST_START / 100);
    }
}

fn told(scratch: &Path) -> String {
    std::fs::read_to_string(scratch.join(STATUS)).unwrap_or_default()
}

impl Sandbox<'_> {
    fn bubblewrap(&self, program: &Path) -> Result<Prepared, Error> {
        let path = self.scratch.join(STATUS);
        let open = || {
            let status = File::create_new(&path)?;
            fcntl_setfd(&status, FdFlags::empty())?;
            Ok(status)
        };
        let status = open().map_err(|error: io::Error| Error::host(&path, "make it", error))?;
        let mut command = Command::new(program);
        // By the environment and not by arguments, which everybody can see.
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--unshare-user", "--uid", "0", "--gid", "0"]);
        }
        command.args(["--hostname", self.hostname, "--json-status-fd", &status.as_raw_fd().to_string()]);
        command.arg("--bind").arg(self.root).arg("/");
        command.arg("--proc").arg(&self.proc).arg("--dev").arg(&self.dev);
        command.args(["--perms", "1777", "--tmpfs"]).arg(self.dev.join("shm"));
        command.args(["--ro-bind", "/sys"]).arg(&self.sys);
        for (from, to) in &self.files {
            command.arg("--bind").arg(from).arg(to);
        }
        command.arg("--chdir").arg(self.directory).args(["--cap-drop", "ALL"]);
        for capability in CAPABILITIES {
            command.args(["--cap-add", capability]);
        }
        command.arg("--").args(self.command);
        Ok(Prepared { command, _inherited: Some(status) })
    }

    fn crun(&self, program: &Path) -> Result<Prepared, Error> {
        let configuration = self.configuration()?;
        let path = self.scratch.join("config.json");
        let write =
            || serde_json::to_writer(File::create_new(&path)?, &configuration).map_err(io::Error::from);
        write().map_err(|error| Error::host(&path, "write it", error))?;
        // Killed, crun leaves what it runs alone. In a process namespace of its own, that ends with it, and it with this
        // process.
        let words =
            ["--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut command = Command::new("setpriv");
        command.args(words).arg(program).arg("--cgroup-manager=disabled");
        command.arg("--root").arg(self.scratch.join("state")).arg("run");
        command.arg("--pid-file").arg(self.scratch.join(STATUS)).arg("--bundle").arg(self.scratch);
        command.arg(self.hostname);
        Ok(Prepared { command, _inherited: None })
    }

    /// The same as a bundle's configuration.
    fn configuration(&self) -> Result<Value, Error> {
        // A new device node would be the host's device: crun mounts the root directory with devices, and nothing but a cgroup,
        // which this has not, would keep it from being opened. In bubblewrap no device node can be opened.
        let capabilities: Vec<_> = CAPABILITIES.into_iter().filter(|name| *name != "CAP_MKNOD").collect();
        let environment = self.environment.iter().map(|(name, value)| Ok(format!("{name}={}", text(value)?)));
        let mount = |kind: &str, target: &Path, options: &[&str]| {
            Ok::<_, Error>(
                json!({ "type": kind, "source": kind, "destination": text(target)?, "options": options }),
            )
        };
        let dev = |name: &str| self.dev.join(name);
        let mut mounts = vec![
            mount("proc", &self.proc, &["nosuid", "noexec", "nodev"])?,
            mount("tmpfs", &self.dev, &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
            mount(
                "devpts",
                &dev("pts"),
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            )?,
            mount("tmpfs", &dev("shm"), &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
            mount("mqueue", &dev("mqueue"), &["nosuid", "noexec", "nodev"])?,
        ];
        mounts.push(mount("sysfs", &self.sys, &["ro", "nosuid", "noexec", "nodev"])?);
        for (from, to) in &self.files {
            let (from, to) = (text(from)?, text(to)?);
            mounts.push(json!({ "type": "bind", "source": from, "destination": to, "options": ["bind"] }));
        }
        let arguments = self.command.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        Ok(json!({
            "ociVersion": "1.0.2",
            "root": { "path": text(self.root)?, "readonly": false },
            "hostname": self.hostname,
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": arguments,
                "env": environment.collect::<Result<Vec<_>, Error>>()?,
                "cwd": text(self.directory)?,
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "maskedPaths": [
                    "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                ],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }))
    }
}

/// Text as a configuration can hold it.
fn text<T: AsRef<OsStr> + ?Sized>(value: &T) -> Result<&str, Error> {
    let value = value.as_ref();
    value.to_str().ok_or_else(|| {
        let shown = value.to_string_lossy();
        Error::usage(
            "run",
            format!("'{}' is no UTF-8, which crun needs; use bubblewrap", shown.escape_debug()),
        )
    })
}
