//! What a command that is run gets to see, and the programs that can give it that.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use layerstone::Error;
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

impl Runtime {
    fn program(self) -> &'static str {
        match self {
            Self::Bubblewrap => "bwrap",
            Self::Crun => "crun",
        }
    }

    fn is_installed(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(self.program()).is_file())
    }

    /// The one that is wanted, or the first that is installed.
    pub(super) fn find(wanted: Option<Self>) -> Result<Self, Error> {
        let is_root = rustix::process::geteuid().is_root();
        let candidates = [Self::Bubblewrap, Self::Crun].into_iter();
        let mut candidates = candidates
            .filter(|candidate| wanted.is_none_or(|wanted| wanted == *candidate) && candidate.is_installed());
        let found = candidates.find(|candidate| *candidate == Self::Bubblewrap || is_root);
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

    /// How to start it.
    pub(super) fn command(self, sandbox: &Sandbox<'_>) -> Result<Command, Error> {
        match self {
            Self::Bubblewrap => Ok(sandbox.bubblewrap()),
            Self::Crun => sandbox.crun(),
        }
    }
}

impl Sandbox<'_> {
    fn bubblewrap(&self) -> Command {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--unshare-user", "--uid", "0", "--gid", "0"]);
        }
        command.args(["--hostname", self.hostname]);
        command.arg("--bind").arg(self.root).arg("/");
        command.arg("--proc").arg(&self.proc).arg("--dev").arg(&self.dev);
        command.args(["--ro-bind", "/sys"]).arg(&self.sys);
        for (from, to) in &self.files {
            command.arg("--bind").arg(from).arg(to);
        }
        command.arg("--chdir").arg(self.directory).arg("--clearenv");
        for (name, value) in &self.environment {
            command.arg("--setenv").arg(name).arg(value);
        }
        command.args(["--cap-drop", "ALL"]);
        for capability in CAPABILITIES {
            command.args(["--cap-add", capability]);
        }
        command.arg("--").args(self.command);
        command
    }

    fn crun(&self) -> Result<Command, Error> {
        let configuration = self.configuration()?;
        let path = self.scratch.join("config.json");
        let write =
            || serde_json::to_writer(File::create_new(&path)?, &configuration).map_err(io::Error::from);
        write().map_err(|error| Error::host(&path, "write it", error))?;
        let mut command = Command::new("crun");
        command.arg("--cgroup-manager=disabled").arg("--root").arg(self.scratch.join("state"));
        command.arg("run").arg("--bundle").arg(self.scratch).arg(self.hostname);
        Ok(command)
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
        let bind = |from: &Path, to: &Path, options: &[&str]| {
            Ok::<_, Error>(
                json!({ "type": "bind", "source": text(from)?, "destination": text(to)?, "options": options }),
            )
        };
        mounts.push(bind(Path::new("/sys"), &self.sys, &["rbind", "ro", "nosuid", "noexec", "nodev"])?);
        for (from, to) in &self.files {
            mounts.push(bind(from, to, &["bind"])?);
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
