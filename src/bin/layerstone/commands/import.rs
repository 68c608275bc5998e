//! `import`: makes an image of a directory or a tar.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use layerstone::{Error, Excludes, ImportLimits, ImportOptions, TagName};

use super::source::ReadArguments;
use super::tar::{open_input, open_tar, tar_options};
use super::{Context, Outcome, made, usage};
use crate::Failure;
use crate::values::{bytes, number, some_seconds};

/// Import a directory or a root file system tar as an image, and print its UUID last
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  layerstone import rootfs.tar.zst --tag debian:12\n  layerstone import - --tag mine < mine.tar"
)]
pub(crate) struct ImportArguments {
    /// Directory, tar (a file or a pipe), or `-` for a tar on standard input
    pub(crate) source: PathBuf,
    /// Give the image this tag; may be repeated
    #[arg(long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<TagName>,
    /// Say what the source is, also if it looks like a saved image [default: dir for a directory, tar for all else]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<SourceFormat>,
    /// Say this of it in the history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) message: String,
    /// Read every file of a directory, even if its size and times are those of an earlier import
    #[arg(long)]
    pub(crate) reread: bool,
    /// Refuse a tar without its end mark, since it may have been cut short, or with other data behind it
    #[arg(long)]
    pub(crate) require_end: bool,
    #[command(flatten)]
    pub(crate) directory: DirectoryArguments,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
    /// Print the UUID only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What is read of a directory.
#[derive(Debug, Args)]
pub(crate) struct DirectoryArguments {
    #[command(flatten)]
    read: ReadArguments,
    /// Leave out what is mounted below a directory: mount points stay, empty
    #[arg(long)]
    one_file_system: bool,
    /// Leave out names of a directory that match, as in .gitignore: `*.log`, `/proc/*`, `cache/`; `!keep.log` takes one in
    /// again; may be repeated
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,
    /// Leave out what the patterns of a file match (`-` is standard input), which come before those of `--exclude`; may be
    /// repeated
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
}

impl DirectoryArguments {
    fn excludes(&self, timeout: Option<Duration>) -> Result<Excludes, Failure> {
        let mut excludes = Excludes::new();
        for file in &self.exclude_from {
            excludes.add_from(open_input(file, timeout)?, file)?;
        }
        for pattern in &self.exclude {
            let message = "a pattern is not UTF-8, which patterns are; put '*' in the place of such bytes";
            excludes.add(pattern.to_str().ok_or_else(|| usage("--exclude", message))?)?;
        }
        Ok(excludes)
    }

    /// An option that was given and that a tar has no use for.
    fn given(&self) -> Option<&'static str> {
        let named = [
            (self.one_file_system, "--one-file-system"),
            (!self.exclude.is_empty(), "--exclude"),
            (!self.exclude_from.is_empty(), "--exclude-from"),
        ];
        let named = named.into_iter().find_map(|(is_given, name)| is_given.then_some(name));
        named.or_else(|| self.read.given())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceFormat {
    /// A directory
    Dir,
    /// A tar, plain or compressed with gzip or zstd
    Tar,
}

/// What an import may ask for at most.
#[derive(Debug, Args)]
pub(crate) struct LimitArguments {
    /// Refuse more bytes than this in all files together, holes included [default: 1 TiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_bytes: Option<u64>,
    /// Refuse more files, directories and other entries than this [default: 4194304]
    #[arg(long, value_name = "COUNT", value_parser = number::<u64>)]
    pub(crate) max_entries: Option<u64>,
    /// Refuse more bytes than this of a tar's names and attributes, which are held in memory [default: 128 MiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_metadata_bytes: Option<u64>,
    /// Stop after so many seconds, also where a pipe gives nothing [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = some_seconds)]
    pub(crate) timeout: Option<f64>,
}

impl LimitArguments {
    fn limits(&self) -> ImportLimits {
        let default = ImportLimits::default();
        ImportLimits {
            logical_bytes_max: self.max_bytes.unwrap_or(default.logical_bytes_max),
            // Its headers and padding come on top of what the files have.
            stream_bytes_max: self.max_bytes.map_or(default.stream_bytes_max, |bytes| {
                default.stream_bytes_max.max(bytes.saturating_mul(2))
            }),
            entries_max: self.max_entries.unwrap_or(default.entries_max),
            metadata_bytes_max: self.max_metadata_bytes.unwrap_or(default.metadata_bytes_max),
            time_max: self.timeout.map(Duration::from_secs_f64),
            ..default
        }
    }
}

impl ImportArguments {
    /// Refuses options that say nothing of what the source is.
    fn check_options(&self, is_tar: bool) -> Outcome {
        let (option, message) = if is_tar {
            let reread = self.reread.then_some("--reread");
            (
                reread.or_else(|| self.directory.given()),
                "is for directories; a tar is read whole: unpack it to leave parts out",
            )
        } else {
            let require_end = self.require_end.then_some("--require-end");
            let names = self.limits.max_metadata_bytes.map(|_| "--max-metadata-bytes");
            (require_end.or(names), "is for tars, and the source is a directory; leave it out")
        };
        option.map_or(Ok(()), |option| Err(usage(option, message)))
    }
}

pub(super) fn run(context: &Context, arguments: &ImportArguments) -> Outcome {
    let ImportArguments { source, tags, format, message, reread, require_end, directory, limits, quiet } =
        arguments;
    let is_stdin = source.as_os_str() == "-";
    let is_tar = match format {
        Some(format) => *format == SourceFormat::Tar,
        // A tar also comes through a pipe: `import <(tar …)`, `import /dev/stdin`.
        None => is_stdin || !source.is_dir(),
    };
    if !is_tar && is_stdin {
        return Err(usage("--format", "only a tar can be read from standard input"));
    }
    if is_address(source) {
        let message = "registries are not supported, nor are addresses; hand over what another program fetches: curl URL | layerstone import -";
        return Err(usage("SOURCE", message));
    }
    if is_tar && !is_stdin && source.is_dir() {
        return Err(usage("--format", "the source is a directory; leave the option out, or name a tar"));
    }
    arguments.check_options(is_tar)?;
    let limits = limits.limits();
    let options = ImportOptions {
        tags: tags.clone(),
        comment: message.clone(),
        reread: *reread,
        changing: directory.read.changing(),
        one_file_system: directory.one_file_system,
        exclude: directory.excludes(limits.time_max)?,
        // Who says the format has looked at it.
        tar: tar_options(source, *require_end, format.is_some()),
        limits,
    };
    // Opened before a store is made for it.
    let tar = if is_tar {
        Some(open_tar(source, options.limits.time_max)?)
    } else {
        check_directory(source)?;
        options.exclude.check_relative_to(source)?;
        None
    };
    let project = context.project_of(&context.new_store()?)?;
    let report = match tar {
        Some(tar) => project.import_tar(tar, &options)?,
        None => project.import_directory(source, &options)?,
    };
    made::show(&context.out, *quiet, &report, message)
}

/// Whether a source looks like an address, and is no file.
fn is_address(source: &Path) -> bool {
    source.to_string_lossy().contains("://") && source.symlink_metadata().is_err()
}

fn check_directory(source: &Path) -> Outcome {
    match source.read_dir() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(usage("--format", "the source is no directory"))
        }
        Err(error) => Err(Failure::Store(Error::host(source, "open it", error))),
    }
}
