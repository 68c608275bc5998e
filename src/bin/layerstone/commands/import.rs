//! `import`: makes an image of a directory or a tar.

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
    exclude: Vec<String>,
    /// Leave out what the patterns of a file match (`-` is standard input), which come before those of `--exclude`; may be
    /// repeated
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
}

impl DirectoryArguments {
    fn excludes(&self) -> Result<Excludes, Failure> {
        let mut excludes = Excludes::new();
        for file in &self.exclude_from {
            excludes.add_from(open_input(file)?, file)?;
        }
        self.exclude.iter().try_for_each(|pattern| excludes.add(pattern))?;
        Ok(excludes)
    }

    /// Whether an option was given that a tar has no use for.
    fn is_given(&self) -> bool {
        self.one_file_system || !self.exclude.is_empty() || !self.exclude_from.is_empty()
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
    /// Stop after so many seconds, as soon as the source (a stalled pipe) gives something [default: no limit]
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

pub(super) fn run(context: &Context, arguments: &ImportArguments) -> Outcome {
    let ImportArguments { source, tags, format, message, reread, require_end, directory, limits, quiet } =
        arguments;
    let options = ImportOptions {
        tags: tags.clone(),
        comment: message.clone(),
        reread: *reread,
        changing: directory.read.changing(),
        one_file_system: directory.one_file_system,
        exclude: directory.excludes()?,
        limits: limits.limits(),
        // Who says the format has looked at it.
        tar: tar_options(source, *require_end, format.is_some()),
    };
    let is_stdin = source.as_os_str() == "-";
    let is_tar = match format {
        Some(format) => *format == SourceFormat::Tar,
        // A tar also comes through a pipe: `import <(tar …)`, `import /dev/stdin`.
        None => is_stdin || !source.is_dir(),
    };
    if is_tar && directory.is_given() {
        let message = "--one-file-system, --exclude and --exclude-from are for directories; unpack the tar to leave parts out";
        return Err(usage("SOURCE", message));
    }
    if !is_tar && is_stdin {
        return Err(usage("--format", "only a tar can be read from standard input"));
    }
    if is_address(source) {
        let message = "registries are not supported, nor are addresses; hand over what another program fetches: curl URL | layerstone import -";
        return Err(usage("SOURCE", message));
    }
    // Opened before a store is made for it.
    let tar = if is_tar {
        Some(open_tar(source)?)
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
