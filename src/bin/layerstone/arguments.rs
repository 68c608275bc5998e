//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use layerstone::{ImageRef, ImportLimits, Moment, ProjectName, TagName, TreePath, WorkspaceName};

use crate::run::Runtime;

/// Keep file-system images: import, change, commit, tag, compare, check out.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, subcommand_required = true, arg_required_else_help = false)]
pub(crate) struct Arguments {
    /// Directory of the store; made on first use [default: `LAYERSTONE_STORE`, or layerstone in the user's data directory]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) store: Option<PathBuf>,
    /// Project to work in; `public` is the scope that all projects read [default: `LAYERSTONE_PROJECT`, or default]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) project: Option<ProjectName>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds to wait for another process that holds the store
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds, global = true)]
    pub(crate) lock_timeout: f64,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, list or remove projects
    #[command(subcommand, arg_required_else_help = false)]
    Project(ProjectCommand),
    /// Import a directory or a root file system tar; prints the image's UUID last
    Import(ImportArguments),
    /// Give an image tags, or take one away
    Tag(TagArguments),
    /// Remove one tag, or all tags of an image
    Untag(UntagArguments),
    /// List images, newest first
    Images(ImagesArguments),
    /// Show all that is known of images
    Inspect {
        /// UUIDs, tags or names
        #[arg(required = true)]
        images: Vec<ImageRef>,
    },
    /// Show the steps that led to an image, newest first
    History {
        /// UUID, tag or name
        image: ImageRef,
    },
    /// Show where two images differ
    Diff {
        /// The image before
        before: ImageRef,
        /// The image after
        after: ImageRef,
    },
    /// List a directory of an image
    Ls {
        /// UUID, tag or name
        image: ImageRef,
        /// Path in the image
        #[arg(default_value = "/", value_parser = tree_path())]
        path: TreePath,
    },
    /// Print a file of an image
    Cat {
        /// UUID, tag or name
        image: ImageRef,
        /// Path in the image
        #[arg(value_parser = tree_path())]
        path: TreePath,
    },
    /// Write an image as real files
    Checkout(CheckoutArguments),
    /// Commit a changed checkout, an overlay's upper directory or a layer's tar as a new image; prints the image's UUID last
    Commit(CommitArguments),
    /// Make, list, commit or discard writable copies of images
    #[command(subcommand, arg_required_else_help = false)]
    Workspace(WorkspaceCommand),
    /// Run a command in a copy of an image, and commit what it changed; prints the image's UUID last
    Run(RunArguments),
    /// Merge what another image changed into an image; prints the new image's UUID last
    Merge(MergeArguments),
    /// Show which image came from which
    Tree {
        /// Only this image and what came from it: UUID, tag or name
        image: Option<ImageRef>,
        /// Print a graph for Graphviz
        #[arg(long, conflicts_with = "json")]
        dot: bool,
    },
    /// Write an image as a tar of its root file system
    Export {
        /// UUID, tag or name
        image: ImageRef,
        /// File to write, replaced only by a complete one; `-` is standard output [default: -]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read everything in the store back and check it, for all projects
    Verify {
        /// Do not read the contents of files: only that all is there
        #[arg(long)]
        quick: bool,
    },
    /// Free what no image of any project needs any more, while others go on
    Gc(GcArguments),
    /// Keep all of a damaged store that is sound, and say what is lost; nobody else may use it meanwhile
    Repair {
        /// Bring back images, too, that had been removed, as far as they are still there
        #[arg(long)]
        include_removed: bool,
    },
    /// Remove a tag, and its image with the last one; or by UUID the image
    Rm {
        /// UUIDs, tags or names
        #[arg(required = true)]
        images: Vec<ImageRef>,
        /// Remove an image by UUID though it has several tags
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectCommand {
    /// Make a project
    Create {
        /// Its name
        name: ProjectName,
    },
    /// List projects
    Ls,
    /// Set what a project may have
    Limit {
        /// Its name
        name: ProjectName,
        /// Most bytes of changed files in one commit, or `none`
        #[arg(long, value_name = "BYTES", value_parser = limit)]
        max_layer_bytes: Limit,
    },
    /// Remove a project
    Rm {
        /// Its name
        name: ProjectName,
        /// Remove it with its images and tags
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Make a workspace on an image: an overlay mount where this process may mount, otherwise a checkout; prints its name last
    Create {
        /// UUID, tag or name
        image: ImageRef,
        /// Its name [default: one that is free]
        #[arg(long)]
        name: Option<WorkspaceName>,
        /// Make a checkout of its own, even where an overlay could be mounted
        #[arg(long)]
        copy: bool,
        /// Print the name only
        #[arg(short, long)]
        quiet: bool,
    },
    /// List workspaces
    Ls,
    /// Print the directory to work in; mounts it again after a boot
    Path {
        /// The workspace
        name: WorkspaceName,
    },
    /// Commit what was changed as a new image, and end the workspace; prints the image's UUID last
    Commit {
        /// The workspace
        name: WorkspaceName,
        /// Do not end it
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        made: MadeArguments,
    },
    /// End workspaces: what was changed in them is gone
    Discard {
        /// The workspaces
        #[arg(required = true)]
        names: Vec<WorkspaceName>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceFormat {
    /// A directory
    Dir,
    /// A tar, plain or compressed with gzip or zstd
    Tar,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// A directory, a tar (a file or a pipe), or `-` for a tar on standard input
    pub(crate) source: PathBuf,
    /// Tag for the image; may be repeated
    #[arg(long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<TagName>,
    /// What the source is [default: dir for a directory, tar for all else]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<SourceFormat>,
    /// What to say of it in the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
    /// Read all of a directory, also what its size and times say has not changed since it was imported
    #[arg(long)]
    pub(crate) reread: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArguments,
    /// Print the UUID only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What an import may ask for at most.
#[derive(Debug, Args)]
pub(crate) struct LimitArguments {
    /// Most bytes of all files together, holes included [default: 1 TiB]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    /// Most files, directories and other entries [default: 4194304]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_entries: Option<u64>,
    /// Most bytes of a tar's names and attributes, which are held in memory [default: 128 MiB]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_metadata_bytes: Option<u64>,
    /// Longest time that it may take; a source that gives nothing (a stalled pipe) is waited for until it does [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<f64>,
}

impl LimitArguments {
    pub(crate) fn limits(&self) -> ImportLimits {
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

#[derive(Debug, Args)]
pub(crate) struct TagArguments {
    /// Take the tag away instead: `tag -d [IMAGE] NAME`
    #[arg(short, long)]
    pub(crate) delete: bool,
    /// Only if the tag now names this image, or `absent`
    #[arg(long, value_name = "UUID", conflicts_with = "delete")]
    pub(crate) expect: Option<String>,
    /// Print the image's UUID only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The image, then the tags
    #[arg(required = true, value_name = "IMAGE NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UntagArguments {
    /// Remove all tags of this image
    #[arg(long, value_name = "IMAGE", conflicts_with = "name")]
    pub(crate) all: Option<ImageRef>,
    /// The tag to remove
    #[arg(required_unless_present = "all")]
    pub(crate) name: Option<TagName>,
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArguments {
    /// Only images with a tag that begins so
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Also images without tags
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only images made since: a moment (2026-01-31, 2026-01-31T12:00:00Z) or an age (90s 30m 12h 1d 2w)
    #[arg(long, value_parser = moment)]
    pub(crate) since: Option<Moment>,
    /// Only images made before: a moment or an age
    #[arg(long, value_parser = moment)]
    pub(crate) until: Option<Moment>,
    /// At most so many; 0 for all
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) limit: usize,
    /// Print UUIDs only; with --json, an array of them
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckoutArguments {
    /// UUID, tag or name
    pub(crate) image: ImageRef,
    /// Directory to write: absent, or empty
    pub(crate) directory: PathBuf,
    /// Make device nodes
    #[arg(long)]
    pub(crate) devices: bool,
    /// Set every extended attribute, not only ACLs, user.* and security.capability
    #[arg(long)]
    pub(crate) all_xattrs: bool,
    /// Make the directory durable before it appears
    #[arg(long)]
    pub(crate) fsync: bool,
    /// Take files from this directory, and leave them there for later checkouts; it may be deleted at any time
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// How the cache's files are taken
    #[arg(long, value_enum, default_value_t, requires = "cache")]
    pub(crate) sharing: CacheSharing,
}

/// How files of the cache are taken.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum CacheSharing {
    /// Copies that share their blocks until one is changed, where the file system can (XFS, btrfs)
    #[default]
    Reflink,
    /// The same inode in every checkout: a change of one is a change of all, so only for trees that nobody writes to
    HardLink,
}

#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Say what could be freed, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Free as much as can be: writes most of what is needed beside it anew
    #[arg(long)]
    pub(crate) full: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CommitArguments {
    /// The directory
    #[arg(required_unless_present_any = ["layer", "upper"])]
    pub(crate) directory: Option<PathBuf>,
    /// The image it is a changed copy of; a checkout knows its own
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base: Option<ImageRef>,
    /// Instead of a directory, apply a layer's tar to the base: a file, or `-` for standard input
    #[arg(long, value_name = "TAR", requires = "base", conflicts_with_all = ["directory", "upper"])]
    pub(crate) layer: Option<PathBuf>,
    /// Instead of a directory, commit an overlay's upper directory, whose lower layer is a checkout of the base
    #[arg(long, value_name = "DIR", requires = "base", conflicts_with = "directory")]
    pub(crate) upper: Option<PathBuf>,
    /// The overlay was mounted with `userxattr`
    #[arg(long, requires = "upper")]
    pub(crate) userxattr: bool,
    #[command(flatten)]
    pub(crate) made: MadeArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// UUID, tag or name
    pub(crate) image: ImageRef,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
    /// Commit nothing
    #[arg(long, conflicts_with = "tags")]
    pub(crate) disposable: bool,
    /// Do not end the workspace that it runs in
    #[arg(long)]
    pub(crate) keep: bool,
    /// The workspace's name, and the host name in it [default: one that is free]
    #[arg(long)]
    pub(crate) name: Option<WorkspaceName>,
    /// Set an environment variable, or pass on this process's; may be repeated
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) environment: Vec<String>,
    /// Directory in the image to start in
    #[arg(short, long, value_name = "DIR", default_value = "/")]
    pub(crate) workdir: PathBuf,
    /// What runs it [default: what is installed, bubblewrap first]
    #[arg(long)]
    pub(crate) runtime: Option<Runtime>,
    #[command(flatten)]
    pub(crate) made: MadeArguments,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// The image to merge into: the new image's parent
    pub(crate) ours: ImageRef,
    /// The image whose changes are merged
    pub(crate) theirs: ImageRef,
    /// The image that both have changed [default: the nearest that both came from]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base: Option<ImageRef>,
    #[command(flatten)]
    pub(crate) made: MadeArguments,
}

/// What goes with a new image.
#[derive(Debug, Args)]
pub(crate) struct MadeArguments {
    /// Tag for the image; may be repeated
    #[arg(long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<TagName>,
    /// What to say of it in the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
    /// Refuse to commit more than so many bytes of changed files
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_layer_bytes: Option<u64>,
    /// Print the UUID only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// A number, or no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(pub(crate) Option<u64>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        number => number
            .parse()
            .map(|bytes| Limit(Some(bytes)))
            .map_err(|_| "a number of bytes or 'none' is expected".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.0..1e9).contains(seconds))
        .ok_or_else(|| "a number of seconds is expected".into())
}

/// A path inside an image: bytes, as it may hold what no text does.
fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| TreePath::parse(text.as_bytes()))
}

/// A moment, or how long ago one was.
fn moment(text: &str) -> Result<Moment, String> {
    let age_ms = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit_ms = match unit {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(unit_ms)
    };
    if let Some(age_ms) = age_ms() {
        return Ok(Moment::from_unix_ms(Moment::now().unix_ms().saturating_sub(age_ms)));
    }
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let date = text.parse::<jiff::civil::Date>().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    });
    let ms = timestamp.and_then(|timestamp| u64::try_from(timestamp.as_millisecond()).ok());
    ms.map(Moment::from_unix_ms)
        .ok_or_else(|| "a moment such as 2026-01-31 or 2026-01-31T12:00:00Z, or an age such as 90s 30m 12h 1d 2w, is expected".into())
}
