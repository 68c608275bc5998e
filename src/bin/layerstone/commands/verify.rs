//! `verify`: reads everything back; damage is a failure.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use clap::Args;
use layerstone::path::escape_bytes;
use layerstone::{Error, VerifyReport};
use schemars::JsonSchema;
use serde::Serialize;

use super::damage::{damaged_image, faults, some_lines};
use super::{Context, Outcome};
use crate::Failure;
use crate::output::{Output, Report, count, size};

/// Read everything in the store back and check it, for all projects
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone verify\n  layerstone verify --quick")]
pub(crate) struct VerifyArguments {
    /// Check only that all is there, and leave the contents of files unread
    #[arg(long)]
    quick: bool,
}

pub(super) fn run(context: &Context, arguments: &VerifyArguments) -> Outcome {
    let store = context.store()?;
    let quick = arguments.quick;
    let report = if quick { store.verify_quick()? } else { store.verify()? };
    context.out.show(&Verified { report: &report, quick, location: store.location() })?;
    if report.is_sound() { Ok(()) } else { Err(Failure::Store(Error::damaged(store.location()))) }
}

#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Verified<'a> {
    report: &'a VerifyReport,
    #[serde(skip)]
    quick: bool,
    #[serde(skip)]
    location: &'a Path,
}

impl Report for Verified<'_> {
    fn text(&self) -> io::Result<()> {
        let Self { report, quick, .. } = self;
        faults(&report.faults, report.fault_count)?;
        if !report.damaged_images.is_empty() {
            Output::line("What images lose by it:")?;
            some_lines(&report.damaged_images, report.damaged_image_count, damaged_image)?;
        }
        let images = count(report.images, "image", "images");
        let packs = count(report.packs, "pack", "packs");
        let found = if report.is_sound() {
            "all sound".to_owned()
        } else {
            let damaged = count(report.damaged_image_count, "image", "images");
            format!("{}, {damaged} damaged", count(report.fault_count, "fault", "faults"))
        };
        if report.is_open_to_others {
            let directory = escape_bytes(self.location.as_os_str().as_bytes());
            Output::note(&format!(
                "The store's directory is open to others, who may read all images; chmod 700 {directory} keeps them out."
            ));
        }
        if *quick {
            return Output::line(&format!("{images} in {packs}, file contents not read: {found}"));
        }
        let objects = count(report.objects.unwrap_or(0), "object", "objects");
        let [bytes, stored] = [report.bytes, report.stored_bytes].map(|bytes| size(bytes.unwrap_or(0)));
        Output::line(&format!("{images} and {objects} in {packs}, {bytes} stored as {stored}: {found}"))
    }
}
