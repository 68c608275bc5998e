//! The commands: arguments to library calls to output.

mod gc;
mod upkeep;
mod workspace;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use layerstone::{
    CheckoutOptions, CommitOptions, Error, Expected, ImageRef, ImportOptions, ListOptions, MergeOutcome,
    OverlayMarks, Project, ProjectLimits, SharedFiles, Sharing, Store, StoreOptions, TagName, TreePath,
    WriteReport,
};
use serde_json::json;

use crate::arguments::{
    Arguments, CacheSharing, CheckoutArguments, Command, CommitArguments, ImagesArguments, ImportArguments,
    MadeArguments, MergeArguments, ProjectCommand, SourceFormat, TagArguments, UntagArguments,
};
use crate::output::{Output, size};
use crate::replacement::write_file;
use crate::show;
use crate::{Failure, environment};

type Outcome = Result<(), Failure>;

/// Runs one command.
pub(crate) fn run(arguments: Arguments) -> Outcome {
    let location = match arguments.store {
        Some(store) => store,
        None => environment::store_directory()?,
    };
    let timeout = Duration::from_secs_f64(arguments.lock_timeout);
    let options = StoreOptions::default().lock_timeout(timeout);
    let out = Output { json: arguments.json };
    if let Command::Repair { include_removed } = arguments.command {
        return upkeep::repair(options, &location, &out, include_removed);
    }
    let store = options.open(location)?;
    match arguments.command {
        Command::Project(command) => return projects(&store, &out, command),
        Command::Verify { quick } => return upkeep::verify(&store, &out, quick),
        Command::Gc(arguments) => return gc::run(&store, &out, &arguments),
        _ => {}
    }
    let name = match arguments.project {
        Some(name) => Some(name),
        None => environment::project_name()?,
    };
    let project = match &name {
        None => store.default_project()?,
        Some(name) if name.as_str() == layerstone::ProjectName::DEFAULT => store.default_project()?,
        Some(name) => store.project(name)?,
    };
    match arguments.command {
        Command::Project(_) | Command::Verify { .. } | Command::Repair { .. } | Command::Gc(_) => Ok(()),
        Command::Import(arguments) => import(&project, &out, arguments),
        Command::Tag(arguments) => tag(&project, &out, &arguments),
        Command::Untag(arguments) => untag(&project, &out, arguments),
        Command::Images(arguments) => images(&project, &out, arguments),
        Command::Inspect { images } => inspect(&project, &images),
        Command::History { image } => history(&project, &out, &image),
        Command::Diff { before, after } => diff(&project, &out, &before, &after),
        Command::Ls { image, path } => ls(&project, &out, &image, &path),
        Command::Cat { image, path } => cat(&project, &image, &path),
        Command::Checkout(arguments) => checkout(&project, &out, &arguments),
        Command::Commit(arguments) => commit(&project, &out, arguments),
        Command::Workspace(command) => workspace::run(&project, &out, command),
        Command::Run(arguments) => match crate::run::run(&project, &out, arguments)? {
            0 => Ok(()),
            code => Err(Failure::Ended(code)),
        },
        Command::Merge(arguments) => merge(&project, &out, arguments),
        Command::Tree { image, dot } => tree(&project, &out, image.as_ref(), dot),
        Command::Export { image, output } => export(&project, &image, output.as_deref()),
        Command::Rm { images, force } => remove(&project, &out, &images, force),
    }
}

fn usage(argument: &'static str, message: &str) -> Failure {
    Failure::Store(Error::usage(argument, message))
}

fn projects(store: &Store, out: &Output, command: ProjectCommand) -> Outcome {
    match command {
        ProjectCommand::Create { name } => store.create_project(&name).map(drop)?,
        ProjectCommand::Limit { name, max_layer_bytes } => {
            store.limit_project(&name, ProjectLimits::default().max_layer_bytes(max_layer_bytes.0))?;
        }
        ProjectCommand::Rm { name, force } => store.remove_project(&name, force)?,
        ProjectCommand::Ls => {
            let projects = store.projects()?;
            if out.json {
                return Ok(Output::json(&projects)?);
            }
            let row = |project: &layerstone::ProjectInfo| {
                let limit = project.limits.max_layer_bytes.map_or("none".to_owned(), size);
                vec![
                    project.name.to_string(),
                    project.image_count.to_string(),
                    limit,
                    project.created.to_string(),
                ]
            };
            Output::table(
                &["PROJECT", "IMAGES", "MAX LAYER", "CREATED"],
                &[1, 2],
                projects.iter().map(row).collect(),
            )?;
        }
    }
    Ok(())
}

impl MadeArguments {
    /// The options that they come to, and whether only the UUID is wanted.
    pub(crate) fn options(self) -> (CommitOptions, bool) {
        let Self { tags, message, max_layer_bytes, quiet } = self;
        (CommitOptions { base: None, tags, comment: message, max_layer_bytes }, quiet)
    }
}

/// Says what an import or a commit did, and what became of the user's `message`.
fn written(out: &Output, quiet: bool, report: &WriteReport, message: &str) -> Outcome {
    if !report.is_new && !message.is_empty() {
        Output::note("This image was there already and keeps its comment; the message was not used.");
    }
    if out.json {
        return Ok(Output::json(report)?);
    }
    let _: () = if quiet { Output::line(&report.image.to_string())? } else { show::written(report)? };
    Ok(())
}

fn import(project: &Project, out: &Output, arguments: ImportArguments) -> Outcome {
    let ImportArguments { source, tags, format, message, reread, limits, quiet } = arguments;
    let options = ImportOptions { tags, comment: message.clone(), reread, limits: limits.limits() };
    let is_stdin = source.as_os_str() == "-";
    let is_tar = match format {
        Some(format) => format == SourceFormat::Tar,
        // A tar also comes through a pipe: `import <(tar …)`, `import /dev/stdin`.
        None => is_stdin || std::fs::metadata(&source).is_ok_and(|metadata| !metadata.is_dir()),
    };
    let report = match (is_tar, is_stdin) {
        (true, true) => project.import_tar(io::stdin().lock(), &options)?,
        (true, false) => project.import_tar(open(&source)?, &options)?,
        (false, true) => return Err(usage("--format", "only a tar can be read from standard input")),
        (false, false) => project.import_directory(&source, &options)?,
    };
    written(out, quiet, &report, &message)
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::Store(Error::host(path, "open it", error)))
}

fn name(text: &str) -> Result<TagName, Failure> {
    text.parse().map_err(|error| usage("NAME", &format!("'{}' {error}", text.escape_debug())))
}

fn tag(project: &Project, out: &Output, arguments: &TagArguments) -> Outcome {
    let names = arguments.names.as_slice();
    if arguments.delete {
        let (image, tag) = match names {
            [tag] => (None, tag),
            [image, tag] => (Some(image.parse::<ImageRef>()?), tag),
            _ => return Err(usage("tag -d", "an image, if any, and one tag are expected")),
        };
        let id = project.untag(&name(tag)?, image.as_ref())?;
        return removed(out, &json!({ "untagged": [tag], "image": id }), &[format!("untagged {tag}")]);
    }
    let (Some((image, tags)), true) = (names.split_first(), names.len() > 1) else {
        return Err(usage("tag", "an image and at least one tag are expected: layerstone tag IMAGE NAME…"));
    };
    let image = image.parse::<ImageRef>()?;
    let tags = tags.iter().map(|tag| name(tag)).collect::<Result<Vec<_>, _>>()?;
    let id = match (&arguments.expect, tags.as_slice()) {
        (None, tags) => project.tag(&image, tags)?,
        (Some(expected), [tag]) => {
            let expected = match expected.as_str() {
                "absent" => Expected::Absent,
                text => match text.parse()? {
                    ImageRef::Id(id) => Expected::Image(id),
                    _ => return Err(usage("--expect", "an image's UUID or 'absent' is expected")),
                },
            };
            project.tag_if(&image, tag, expected)?
        }
        (Some(_), _) => return Err(usage("--expect", "goes with one tag")),
    };
    if out.json {
        return Ok(Output::json(&json!({ "image": id, "tags": tags }))?);
    }
    Ok(Output::line(&id.to_string())?)
}

fn untag(project: &Project, out: &Output, arguments: UntagArguments) -> Outcome {
    let UntagArguments { all, name } = arguments;
    let names = match (all, name) {
        (Some(image), _) => project.untag_all(&image)?,
        (None, Some(name)) => project.untag(&name, None).map(|_| vec![name])?,
        (None, None) => Vec::new(),
    };
    let text: Vec<_> = names.iter().map(|name| format!("untagged {name}")).collect();
    removed(out, &json!({ "untagged": names }), &text)
}

fn removed(out: &Output, value: &serde_json::Value, lines: &[String]) -> Outcome {
    if out.json {
        return Ok(Output::json(value)?);
    }
    Ok(lines.iter().try_for_each(|line| Output::line(line))?)
}

fn images(project: &Project, out: &Output, arguments: ImagesArguments) -> Outcome {
    let ImagesArguments { prefix, all, since, until, limit, quiet } = arguments;
    let limit = (limit > 0).then_some(limit);
    let options = ListOptions { prefix, tagged_only: !all, since, until, limit, ..ListOptions::default() };
    let page = project.images(&options)?;
    match (out.json, quiet) {
        (true, true) => Output::json(&page.images.iter().map(|image| image.id).collect::<Vec<_>>())?,
        (true, false) => Output::json(&page.images)?,
        (false, true) => page.images.iter().try_for_each(|image| Output::line(&image.id.to_string()))?,
        (false, false) => show::images(&page.images)?,
    }
    if page.next.is_some() {
        Output::note(&format!("There are more images than {}; -n 0 shows all.", page.images.len()));
    }
    Ok(())
}

fn inspect(project: &Project, images: &[ImageRef]) -> Outcome {
    let found = images.iter().map(|image| project.find(image)).collect::<Result<Vec<_>, _>>()?;
    let infos: Vec<_> = found.iter().map(layerstone::Image::info).collect();
    Ok(Output::json(&infos)?)
}

fn history(project: &Project, out: &Output, image: &ImageRef) -> Outcome {
    let layers = project.find(image)?.history()?;
    let _: () = if out.json { Output::json(&layers)? } else { show::history(&layers)? };
    Ok(())
}

fn diff(project: &Project, out: &Output, before: &ImageRef, after: &ImageRef) -> Outcome {
    let (before, after) = (project.find(before)?, project.find(after)?);
    let differences = before.diff(&after)?;
    if out.json {
        return Ok(Output::json(&differences.collect::<Result<Vec<_>, _>>()?)?);
    }
    for difference in differences {
        show::difference(&difference?)?;
    }
    Ok(())
}

fn ls(project: &Project, out: &Output, image: &ImageRef, path: &TreePath) -> Outcome {
    let entries = project.find(image)?.list(path)?;
    let _: () = if out.json { Output::json(&entries)? } else { show::entries(&entries)? };
    Ok(())
}

fn cat(project: &Project, image: &ImageRef, path: &TreePath) -> Outcome {
    let mut content = project.find(image)?.read_file(path)?;
    let mut stdout = io::stdout().lock();
    copy(&mut content, &mut stdout)?;
    Ok(stdout.flush()?)
}

/// Copies a stream of the library; what fails in reading is the store's failure, not the output's.
fn copy(from: &mut impl io::Read, to: &mut impl Write) -> Outcome {
    let mut buf = vec![0; 256 << 10];
    loop {
        let read = match from.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(Failure::Store(Error::from_stream(error))),
        };
        to.write_all(buf.get(..read).unwrap_or_default())?;
    }
}

fn checkout(project: &Project, out: &Output, arguments: &CheckoutArguments) -> Outcome {
    let sharing = match arguments.sharing {
        CacheSharing::Reflink => Sharing::Reflink,
        CacheSharing::HardLink => Sharing::HardLink,
    };
    let shared = arguments.cache.clone().map(|directory| SharedFiles { directory, sharing });
    let options = CheckoutOptions {
        devices: arguments.devices,
        all_xattrs: arguments.all_xattrs,
        fsync: arguments.fsync,
        shared,
    };
    let report = project.find(&arguments.image)?.check_out(&arguments.directory, options)?;
    if out.json {
        return Ok(Output::json(&report)?);
    }
    show::left_out(&report);
    Ok(show::checked_out(&report, &arguments.directory)?)
}

fn commit(project: &Project, out: &Output, arguments: CommitArguments) -> Outcome {
    let CommitArguments { directory, base, layer, upper, userxattr, made } = arguments;
    let (options, quiet) = made.options();
    let message = options.comment.clone();
    let report = match (directory, layer, upper, base) {
        (None, Some(layer), None, Some(base)) => {
            let edit = project.find(&base)?.edit();
            let is_stdin = layer.as_os_str() == "-";
            let edit =
                if is_stdin { edit.apply_tar(io::stdin().lock()) } else { edit.apply_tar(open(&layer)?) };
            edit.commit(&options)?
        }
        (None, None, Some(upper), Some(base)) => {
            let marks = if userxattr { OverlayMarks::User } else { OverlayMarks::Trusted };
            project.commit_upper(&upper, &base, marks, &options)?
        }
        (Some(directory), None, None, base) => {
            project.commit(&directory, &CommitOptions { base, ..options })?
        }
        _ => return Err(usage("DIRECTORY", "one of a directory, --layer and --upper is expected")),
    };
    written(out, quiet, &report, &message)
}

fn merge(project: &Project, out: &Output, arguments: MergeArguments) -> Outcome {
    let MergeArguments { ours, theirs, base, made } = arguments;
    let (options, quiet) = made.options();
    let message = options.comment.clone();
    let outcome = project.merge(&ours, &theirs, &CommitOptions { base, ..options })?;
    match &outcome {
        MergeOutcome::Conflicts(_) if out.json => Output::json(&outcome)?,
        MergeOutcome::Conflicts(paths) => {
            paths.iter().try_for_each(|path| Output::line(&format!("C {path}")))?;
        }
        MergeOutcome::Merged(_) => {}
    }
    written(out, quiet, &outcome.into_report()?, &message)
}

fn tree(project: &Project, out: &Output, image: Option<&ImageRef>, dot: bool) -> Outcome {
    let nodes = project.lineage(image)?;
    let _: () = match (out.json, dot) {
        (true, _) => Output::json(&nodes)?,
        (false, true) => show::lineage_graph(&nodes)?,
        (false, false) => show::lineage(&nodes)?,
    };
    Ok(())
}

fn export(project: &Project, image: &ImageRef, output: Option<&Path>) -> Outcome {
    let image = project.find(image)?;
    let left_out = match output {
        Some(path) if path.as_os_str() != "-" => write_file(path, |file| image.export(file))?,
        _ => image.export(io::stdout().lock())?,
    };
    for path in left_out {
        Output::note(&format!("{path}: left out: a tar can't hold a socket"));
    }
    Ok(())
}

fn remove(project: &Project, out: &Output, images: &[ImageRef], force: bool) -> Outcome {
    for image in images {
        let report = project.remove(image, force)?;
        let mut lines: Vec<_> = report.untagged.iter().map(|tag| format!("untagged {tag}")).collect();
        lines.extend(report.removed.map(|id| format!("removed {id}")));
        removed(out, &json!(report), &lines)?;
    }
    Ok(())
}
