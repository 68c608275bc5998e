//! What the commands that read a directory have in common.

use clap::{Args, ValueEnum};
use layerstone::{Changing, GaveWay, NotKept, SourceReport, TreePath};

use crate::output::{Asked, Output, asked, count};

/// How a directory is read that others use meanwhile.
#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// What to do with files that can't be read as they were at one moment [default: refuse]
    #[arg(long, value_enum, value_name = "RULE")]
    changing: Option<ChangingRule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ChangingRule {
    /// Name one and make no image
    Refuse,
    /// Keep what could be read of each, and name them all
    Keep,
}

impl ReadArguments {
    pub(super) fn changing(&self) -> Changing {
        match self.changing {
            Some(ChangingRule::Keep) => Changing::Keep,
            Some(ChangingRule::Refuse) | None => Changing::Refuse,
        }
    }

    /// The options that were given, of which a tar has no use.
    pub(super) fn given(&self) -> Option<&'static str> {
        self.changing.map(|_| "--changing")
    }
}

/// How many mount points are named.
const NAMED_MAX: usize = 5;

/// Says on stderr what an image does not have of the directory or the tar that it was made of.
pub(super) fn note(report: &SourceReport) {
    let SourceReport {
        changed,
        mounts_read,
        mounts_left_out,
        excluded: _,
        store,
        not_kept,
        gave_way,
        other_data_at,
    } = report;
    for path in changed {
        Output::note(&format!(
            "{path}: the image has what could be read of it: it changed meanwhile, or its size is not what is listed"
        ));
    }
    if !mounts_read.is_empty() {
        let mounts = mounts(mounts_read);
        let or = if asked() == Asked::Import { ", or import with --one-file-system," } else { "" };
        Output::note(&format!("{mounts} was read, too; unmount it{or} to leave it out."));
    }
    if !mounts_left_out.is_empty() {
        Output::note(&format!("{} was left out.", mounts(mounts_left_out)));
    }
    if let Some(path) = store {
        Output::note(&format!("{path}: left out: it is the store itself"));
    }
    for kind in not_kept {
        Output::note(&lost(kind));
    }
    if let Some(GaveWay { paths, example }) = gave_way {
        let paths = count(*paths, "path", "paths");
        Output::note(&format!(
            "{paths} of the tar gave way to later entries, {example} first: no path is both a file and a directory."
        ));
    }
    if let Some(at) = other_data_at {
        Output::note(&format!(
            "Behind the end mark of the tar, other data begins at byte {at}, and was not read: another tar, maybe. --require-end refuses such a tar."
        ));
    }
}

fn mounts(paths: &[TreePath]) -> String {
    let named: Vec<_> = paths.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = if paths.len() > NAMED_MAX { ", …" } else { "" };
    format!("What is mounted at {} ({}{more})", count(paths.len() as u64, "path", "paths"), named.join(", "))
}

fn lost(kind: &NotKept) -> String {
    let other;
    let what = match kind.what.as_ref() {
        "immutable" => "immutable (chattr +i)",
        "append-only" => "append-only (chattr +a)",
        "no-dump" => "left out of dumps (chattr +d)",
        "encrypted" => "encrypted by the file system",
        "verity" => "protected by fs-verity",
        "compressed" => "compressed by the file system (chattr +c)",
        "direct-access" => "used without the page cache (chattr +x)",
        "no-access-times" => "without access times (chattr +A)",
        "synchronous" => "written synchronously (chattr +S)",
        "synchronous-directory" => "changed synchronously (chattr +D)",
        "secure-removal" => "overwritten when removed (chattr +s)",
        "undeletable" => "undeletable (chattr +u)",
        "no-tail-merging" => "without merged tails (chattr +t)",
        "top-directory" => "at the top of hierarchies (chattr +T)",
        "journaled-data" => "journaled with contents (chattr +j)",
        "no-compression" => "never compressed (chattr +m)",
        "no-copy-on-write" => "not copied on write (chattr +C)",
        "case-folding" => "indifferent to the case of names (chattr +F)",
        "project-id" => "in a quota project (chattr +P)",
        record => {
            other = format!("described by {record}");
            &other
        }
    };
    let is = if kind.paths == 1 { "is" } else { "are" };
    if kind.what == "file of an earlier dump" {
        let files = count(kind.paths, "file", "files");
        let advice = "unpack all dumps in turn with 'tar --incremental', and import the directory";
        return format!(
            "{files} that this incremental dump lists {is} not in it: {}; {advice}",
            kind.example
        );
    }
    format!("{} {is} {what}, which no image keeps: {}", count(kind.paths, "path", "paths"), kind.example)
}
