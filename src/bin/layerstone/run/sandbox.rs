//! What a command that is run gets to see, and the programs that can give it that.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use layerstone::Error;
use rustix::fs::{Access, AtFlags, CWD, MemfdFlags, SealFlags, accessat, fcntl_add_seals, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use super::relay::GenerationGuard;
use super::{devices, seccomp};

/// Files of the kernel that a command may read, as in Docker: for root the kernel itself would let it change the host by them.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Files of the kernel that a command finds empty, as in Docker.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

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

/// What starts a runtime so that it ends with this process.
const HELPERS: [&str; 3] = ["setpriv", "unshare", "flock"];

/// Where a runtime tells what became of the command.
const STATUS: &str = "status";

/// Becomes a runtime, unless the process that locks the file has ended.
const GO_ON: &str = "! flock --nonblock \"$0\" true && shift && exec \"$@\"";
/// Ends this mount namespace's copies of other workspaces' mounts, which would last as long as the command.
const LET_OTHERS_GO: &str = r#"
    while read -r source target rest; do
        case "$source" in layerstone-*) [ "$target" = "$1" ] || umount -l "$target";; esac
    done < /proc/self/mounts 2> /dev/null
"#;

/// What is to be started, and files that are open until it has ended.
pub(super) struct Prepared {
    pub(super) command: Command,
    _open: Vec<File>,
}

/// A runtime that was found.
pub(crate) struct Found {
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
    pub(crate) fn find(wanted: Option<Self>) -> Result<Found, Error> {
        let is_root = rustix::process::geteuid().is_root();
        let candidates = [Self::Bubblewrap, Self::Crun].into_iter();
        let candidates = candidates.filter(|candidate| wanted.is_none_or(|wanted| wanted == *candidate));
        let mut candidates = candidates.filter(|candidate| *candidate == Self::Bubblewrap || is_root);
        let found = candidates.find_map(|runtime| Some(Found { runtime, path: find(runtime.program())? }));
        let found = found.ok_or_else(|| {
            let what = match wanted {
                None if is_root => "neither bubblewrap nor crun is installed",
                None | Some(Self::Bubblewrap) => "bubblewrap is not installed",
                Some(Self::Crun) if is_root => "crun is not installed",
                Some(Self::Crun) => "crun is for root only; use bubblewrap",
            };
            let package = if wanted == Some(Self::Crun) && is_root { "crun" } else { "bubblewrap" };
            Error::unavailable("run", format!("{what}; on Debian: apt-get install {package}"))
        })?;
        match HELPERS.into_iter().find(|helper| find(helper).is_none()) {
            Some(helper) => {
                let message = format!("{helper} is not installed; on Debian: apt-get install util-linux");
                Err(Error::unavailable("run", message))
            }
            None => Ok(found),
        }
    }
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let can_run = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(can_run)
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

    /// Whether all that it says comes before what the command does.
    pub(super) fn speaks_first(&self) -> bool {
        self.runtime == Runtime::Crun
    }

    /// Says that it did not start the command, and why, if what it said was held back.
    pub(super) fn failure(&self, said: &[u8]) -> String {
        let name = match self.runtime {
            Runtime::Bubblewrap => "bubblewrap",
            Runtime::Crun => "crun",
        };
        let said = String::from_utf8_lossy(said).trim_end().replace('\n', "; ");
        let why = if said.is_empty() { "it says why itself" } else { &said };
        format!("run: {name} could not start the command; {why}")
    }

    /// Which of the lines on standard error are its own: it writes to the same as the command.
    pub(super) fn own_lines(&self, scratch: &Path) -> GenerationGuard {
        match self.runtime {
            Runtime::Bubblewrap => GenerationGuard::Lines(b"bwrap: "),
            Runtime::Crun => {
                let status = scratch.join(STATUS);
                let has_started = move || status.metadata().is_ok_and(|status| status.len() > 0);
                GenerationGuard::Until(Box::new(has_started))
            }
        }
    }
}

fn told(scratch: &Path) -> String {
    std::fs::read_to_string(scratch.join(STATUS)).unwrap_or_default()
}

impl Sandbox<'_> {
    fn bubblewrap(&self, program: &Path) -> Result<Prepared, Error> {
        let own = sealed(program)?;
        let own_fd = own.as_ref().map(|own| own.as_raw_fd().to_string());
        let program = own_fd.as_ref().map_or(program.to_owned(), |fd| Path::new("/proc/self/fd").join(fd));
        let status = self.inherited(STATUS, &[])?;
        let filter = seccomp::program().map(|filter| self.inherited("filter", &filter)).transpose()?;
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |more: &[&OsStr]| words.extend(more.iter().map(|word| (*word).to_owned()));
        add(&["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"].map(OsStr::new));
        if !rustix::process::geteuid().is_root() {
            add(&["--unshare-user", "--uid", "0", "--gid", "0"].map(OsStr::new));
        }
        let status_fd = status.as_raw_fd().to_string();
        add(&["--hostname", self.hostname, "--json-status-fd", &status_fd].map(OsStr::new));
        add(&["--bind".as_ref(), self.root.as_ref(), "/".as_ref()]);
        add(&["--proc".as_ref(), self.proc.as_ref(), "--dev".as_ref(), self.dev.as_ref()]);
        let mut null = PathBuf::from("/dev/null");
        for (name, node) in self.own_devices()? {
            add(&["--dev-bind".as_ref(), node.as_ref(), self.dev.join(name).as_ref()]);
            if name == "null" {
                null = node;
            }
        }
        add(&["--perms".as_ref(), "1777".as_ref(), "--tmpfs".as_ref(), self.dev.join("shm").as_ref()]);
        add(&["--ro-bind".as_ref(), "/sys".as_ref(), self.sys.as_ref()]);
        for path in READ_ONLY {
            add(&["--ro-bind-try".as_ref(), path.as_ref(), self.kernel_path(path).as_ref()]);
        }
        for path in MASKED.into_iter().filter(|path| Path::new(path).exists()) {
            let inside = self.kernel_path(path);
            if Path::new(path).is_dir() {
                add(&["--tmpfs".as_ref(), inside.as_ref(), "--remount-ro".as_ref(), inside.as_ref()]);
            } else {
                add(&["--dev-bind".as_ref(), null.as_ref(), inside.as_ref()]);
            }
        }
        for (from, to) in &self.files {
            add(&["--bind".as_ref(), from.as_ref(), to.as_ref()]);
        }
        add(&["--chdir".as_ref(), self.directory.as_ref(), "--clearenv".as_ref()]);
        for (name, value) in &self.environment {
            add(&["--setenv".as_ref(), name.as_ref(), value.as_ref()]);
        }
        add(&["--cap-drop", "ALL"].map(OsStr::new));
        for capability in CAPABILITIES {
            add(&["--cap-add", capability].map(OsStr::new));
        }
        let filter_fd = filter.as_ref().map(|filter| filter.as_raw_fd().to_string());
        if let Some(filter) = &filter_fd {
            add(&["--seccomp", filter].map(OsStr::new));
        }
        if let Some(own) = &own_fd {
            // So that bubblewrap closes it in the command.
            add(&["--sync-fd", own].map(OsStr::new));
        }
        // In a file and not on the command line, which everybody can see.
        let words: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        let words = self.inherited("arguments", &words)?;
        let (mut command, alive) = self.ending_with_us(&program)?;
        command.args(["--args", &words.as_raw_fd().to_string(), "--"]).args(self.command);
        let open = [status, words, alive].into_iter().chain(filter).chain(own).collect();
        Ok(Prepared { command, _open: open })
    }

    /// Returns device nodes for the command alone, by their names in `/dev`. An ordinary user can change nothing of the host's.
    fn own_devices(&self) -> Result<Vec<(&'static str, PathBuf)>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Vec::new());
        }
        let folder = self.scratch.join("devices");
        let made =
            devices::make(&folder).map_err(|error| Error::host(&folder, "make device nodes", error))?;
        Ok(made.unwrap_or_default())
    }

    /// Returns where a path below `/proc` or `/sys` is for the command.
    fn kernel_path(&self, path: &str) -> PathBuf {
        match path.strip_prefix("/proc/") {
            Some(below) => self.proc.join(below),
            None => self.sys.join(path.strip_prefix("/sys/").unwrap_or(path)),
        }
    }

    /// A runtime that is killed when this process ends, with all that it started; and a file that is to stay open meanwhile.
    ///
    /// This process may have ended before that was asked for: so what is started looks whether the file is still locked, and
    /// only then goes on. Killed, neither runtime ends all of what it is just starting; as the first process of a namespace,
    /// which takes root to make, it does.
    fn ending_with_us(&self, program: &Path) -> Result<(Command, File), Error> {
        let path = self.scratch.join("alive");
        let lock = || File::create_new(&path).and_then(|file| file.lock().map(|()| file));
        let alive = lock().map_err(|error| Error::host(&path, "lock it", error))?;
        let mut command = Command::new("setpriv");
        // The command sees what the runtime has in its environment, and crun takes orders from there.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.args(["--pdeathsig", "KILL", "--"]);
        let mut script = GO_ON.to_owned();
        if rustix::process::geteuid().is_root() {
            // Both runtimes look themselves up in /proc.
            command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
            command.args(["--propagation", "slave", "--"]);
            script.insert_str(0, LET_OTHERS_GO);
        }
        command.args(["sh", "-c", &script]).arg(path).arg(self.root).arg(program);
        Ok((command, alive))
    }

    /// A file with this content that what is started inherits.
    fn inherited(&self, name: &str, content: &[u8]) -> Result<File, Error> {
        let path = self.scratch.join(name);
        let make = || {
            let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
            file.write_all(content)?;
            file.rewind()?;
            fcntl_setfd(&file, FdFlags::empty())?;
            Ok(file)
        };
        make().map_err(|error: io::Error| Error::host(&path, "make it", error))
    }

    fn crun(&self, program: &Path) -> Result<Prepared, Error> {
        let configuration = self.configuration()?;
        let path = self.scratch.join("config.json");
        let write =
            || serde_json::to_writer(File::create_new(&path)?, &configuration).map_err(io::Error::from);
        write().map_err(|error| Error::host(&path, "write it", error))?;
        let (mut command, alive) = self.ending_with_us(program)?;
        command.arg("--cgroup-manager=disabled").arg("--root").arg(self.scratch.join("state")).arg("run");
        command.arg("--pid-file").arg(self.scratch.join(STATUS)).arg("--bundle").arg(self.scratch);
        command.arg(self.hostname);
        Ok(Prepared { command, _open: vec![alive] })
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
                "seccomp": seccomp::configuration(),
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
            },
        }))
    }
}

/// Returns a copy of a program in memory that nothing can change: to root in a sandbox it is `/proc/1/exe`, whose mode it could
/// set, and with it that of the host's file. An ordinary user can't. None where this kernel executes no such copies.
fn sealed(program: &Path) -> Result<Option<File>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let Ok(copy) = memfd_create("bwrap", MemfdFlags::ALLOW_SEALING) else { return Ok(None) };
    let mut copy = File::from(copy);
    let mut fill = || {
        io::copy(&mut File::open(program)?, &mut copy)?;
        copy.set_permissions(Permissions::from_mode(0o500))?;
        fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        fcntl_setfd(&copy, FdFlags::empty())?;
        // A kernel may be told to execute no such files (vm.memfd_noexec).
        Ok(accessat(CWD, format!("/proc/self/fd/{}", copy.as_raw_fd()), Access::EXEC_OK, AtFlags::EACCESS)
            .is_ok())
    };
    let can_run = fill().map_err(|error: io::Error| Error::host(program, "copy it", error))?;
    Ok(can_run.then_some(copy))
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
