//! Every archive here is made from raw headers.

use super::*;
use crate::archive::testing::{Raw, archive, member, only, path, pax, pax_body, read, read_within};
use crate::error::ErrorKind;
use crate::path::TreePath;
use crate::tree::entry::Timestamp;

mod compression;
mod dialects;
mod hostile;
mod programs;
mod sparse_files;

/// The archive must be refused so, with a message that has this in it.
#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, message: &str) {
    refused_within(bytes, Limits::default(), kind, message);
}

#[track_caller]
fn refused_within(bytes: &[u8], limits: Limits, kind: ErrorKind, message: &str) {
    let error = read_within(bytes, limits).expect_err("was read");
    assert!(error.to_string().contains(message), "{error} does not say '{message}'");
    assert_eq!(error.kind(), kind, "{error}");
}

/// Refused as malformed, naming the entry `e`.
#[track_caller]
fn malformed(parts: &[Vec<u8>], message: &str) {
    let error = read(&archive(parts)).expect_err("was read");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(matches!(error.subject(), Subject::ArchiveEntry(_)), "{error}");
    assert!(error.to_string().contains(message), "{error} does not say '{message}'");
}

fn file(name: &[u8]) -> Raw {
    Raw::ustar(b'0', name)
}
