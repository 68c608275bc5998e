//! Printing: tables for people, JSON for programs, complaints on stderr.
//!
//! Nothing that is printed here acts on a terminal or looks like a line of its own, whoever chose its text: what could is
//! escaped, in JSON by JSON's own escapes, so that its values stay exact.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use comfy_table::{Cell, CellAlignment, Table, presets};
use layerstone::path::{escape_bytes, is_active};
use layerstone::task::Interruptible;
use layerstone::{Error, ErrorKind, FoundMarks, Moment, Remedy, Subject, TreePath};
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Command;
use crate::left::{self, Stream};
use crate::{Failure, interrupt, progress};

/// A command's result: JSON as it serialises, with a schema, and for people as text.
pub(crate) trait Report: Serialize + JsonSchema {
    /// Prints the text.
    fn text(&self) -> io::Result<()>;
}

/// Returns standard output. A signal ends a write that waits for a reader.
pub(crate) fn stdout() -> io::Result<BufWriter<Interruptible<File>>> {
    begin_stdout().map(BufWriter::new)
}

fn begin_stdout() -> io::Result<Interruptible<File>> {
    left::check_stdout()?;
    progress::clear();
    let mut stdout = stream_of(io::stdout())?;
    stdout.write_all(left::needed(Stream::Stdout).as_bytes())?;
    Ok(stdout)
}

/// Standard output that notes whether it took anything.
pub(crate) struct Noting {
    stdout: Interruptible<File>,
    has_taken: Arc<AtomicBool>,
}

/// Has `write` fill standard output, of which nothing can be taken back; where that is cancelled in between, the failure says
/// so.
pub(crate) fn write_stream<T>(
    write: impl FnOnce(BufWriter<Noting>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let has_taken = Arc::new(AtomicBool::new(false));
    let noting = Noting { stdout: begin_stdout()?, has_taken: Arc::clone(&has_taken) };
    write(BufWriter::new(noting)).map_err(|failure| match failure {
        Failure::Store(error)
            if error.kind() == ErrorKind::Cancelled && has_taken.load(Ordering::Relaxed) =>
        {
            Failure::CutShort
        }
        other => other,
    })
}

impl Write for Noting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.stdout.write(bytes)?;
        self.has_taken.fetch_or(taken > 0, Ordering::Relaxed);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Returns one of this process's streams without a buffer.
pub(crate) fn stream_of(stream: impl AsFd) -> io::Result<Interruptible<File>> {
    interrupt::task().stream(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// A line on standard error, which is lost where nobody reads it.
fn stderr_line(text: &str) {
    progress::clear();
    let _ = writeln!(io::stderr().lock(), "{}{text}", left::needed(Stream::Stderr));
}

/// Where a command's result goes.
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints a result as it was asked for.
    pub(crate) fn show(&self, report: &impl Report) -> io::Result<()> {
        if self.json { Self::json(report) } else { report.text() }
    }

    /// Prints what came of a command that has changed something. Where that can't be printed, `done` says what it was.
    pub(crate) fn report(&self, report: &impl Report, done: impl FnOnce() -> String) -> Result<(), Failure> {
        self.show(report).map_err(|error| Failure::Unreported { error, done: done() })
    }

    /// One line of the result.
    pub(crate) fn line(text: &str) -> io::Result<()> {
        let mut out = stdout()?;
        writeln!(out, "{}", visible(text))?;
        out.flush()
    }

    /// A path of the host, byte for byte: it is there to be used.
    pub(crate) fn path(path: &Path) -> io::Result<()> {
        let mut out = stdout()?;
        out.write_all(path.as_os_str().as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// A result as JSON.
    pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
        let mut out = stdout()?;
        writeln!(out, "{}", visible_json(&serde_json::to_string_pretty(value)?))?;
        out.flush()
    }

    /// A table; numeric columns, by their index, are aligned to the right.
    pub(crate) fn table(header: &[&str], numeric: &[usize], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header.to_vec());
        for row in rows {
            table.add_row(row.iter().map(|cell| Cell::new(visible(cell))).collect::<Vec<_>>());
        }
        for index in 0..header.len() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if numeric.contains(&index) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        let mut out = stdout()?;
        table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))?;
        out.flush()
    }

    /// Something the user should know that is not the result.
    pub(crate) fn note(text: &str) {
        stderr_line(&visible(text));
    }

    /// A failure, by the name of its kind.
    pub(crate) fn complain(kind: ErrorKind, message: &str, json: bool) {
        Self::failed(&[Complaint { error: kind.as_str(), message: message.to_owned(), path: None }], json);
    }

    /// Failures of the library, with what caused them.
    pub(crate) fn explain(errors: &[Error], json: bool) {
        Self::failed(&errors.iter().map(Complaint::from).collect::<Vec<_>>(), json);
    }

    /// As text a line for each; as JSON one object, with the first as its own.
    fn failed(complaints: &[Complaint], json: bool) {
        let Some((first, others)) = complaints.split_first() else { return };
        if !json {
            return complaints.iter().for_each(|each| Self::note(&format!("layerstone: {}", each.message)));
        }
        if let Ok(json) = serde_json::to_string(&ErrorReport { first, others }) {
            stderr_line(&visible_json(&json));
        }
    }
}

/// Why a command failed: the first failure, and those of the other things in a list.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ErrorReport<'a> {
    #[serde(flatten)]
    first: &'a Complaint,
    /// The further failures of a command over a list.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    others: &'a [Complaint],
}

/// One failure.
#[derive(Serialize, JsonSchema)]
struct Complaint {
    /// The name of its kind.
    error: &'static str,
    /// What people read; names and paths in it are escaped.
    message: String,
    /// The path in an image that it is about, if it is about one.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    path: Option<TreePath>,
}

impl From<&Error> for Complaint {
    fn from(error: &Error) -> Self {
        let path = match error.subject() {
            Subject::Path(path) => Some(path.clone()),
            _ => None,
        };
        Self { error: error.kind().as_str(), message: explained(error), path }
    }
}

/// A failure of the library, with what caused it, and what to do in the words of this program.
pub(crate) fn explained(error: &Error) -> String {
    let mut message = error.fault().to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    error.remedy().map_or(message.clone(), |remedy| format!("{message}; {}", advice(remedy)))
}

/// The command that is explained, as far as it matters which options it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Import,
    Commit,
    Other,
}

static ASKED: OnceLock<Asked> = OnceLock::new();

/// Has all that is said explained to those who gave this command.
pub(crate) fn explain_to_users_of(command: &Command) {
    let _ = ASKED.set(match command {
        Command::Import(_) => Asked::Import,
        Command::Commit(_) => Asked::Commit,
        _ => Asked::Other,
    });
}

/// The command that was given.
pub(crate) fn asked() -> Asked {
    ASKED.get().copied().unwrap_or(Asked::Other)
}

/// How this program has the option that would help.
fn advice(remedy: Remedy) -> String {
    let advice = match remedy {
        Remedy::CreateStore => "name another with --store, or make one with 'layerstone init'",
        Remedy::CreateProject => "'layerstone project create' makes one",
        Remedy::NameBase => "name the image that it is based on with --base",
        Remedy::Exclude => "leave it out (--exclude), or import as a user who may read it",
        Remedy::ExcludeAsRoot => {
            "leave it out (--exclude): its file system (FUSE, NFS) or this user namespace lets not even root read it"
        }
        Remedy::KeepChanging => "keep what can be read of such files (--changing keep)",
        Remedy::ExcludeOrKeepChanging => {
            "leave it out (--exclude), or keep what can be read of such files (--changing keep)"
        }
        Remedy::AcceptSavedImage if asked() == Asked::Commit => {
            "or take it as a layer all the same (--any-layer)"
        }
        Remedy::AcceptSavedImage => "or say what it is to take it so (--format)",
        Remedy::Marks { found, or_own } => {
            let option = match found {
                FoundMarks::User => "with --userxattr",
                FoundMarks::FuseOverlayfs => "with --fuse-overlayfs",
                _ => "with neither --userxattr nor --fuse-overlayfs",
            };
            let or_own = if or_own { ", or with --keep-marks if it is the image's own" } else { "" };
            return format!("commit {option}{or_own}");
        }
        Remedy::VisibleMarks => {
            "commit as root, or with --userxattr or --fuse-overlayfs if it is of such an overlay"
        }
        Remedy::RaiseLimit { .. } if asked() == Asked::Commit => "no option of commit raises it",
        Remedy::RaiseLimit { name } => match name {
            "entries_max" => "raise it with --max-entries if the source is trusted",
            "logical_bytes_max" | "stream_bytes_max" => "raise it with --max-bytes if the source is trusted",
            "metadata_bytes_max" => "raise it with --max-metadata-bytes if the source is trusted",
            "time_max" => "raise it with --timeout",
            _ => "no option of this program raises it",
        },
        other => return other.to_string(),
    };
    advice.to_owned()
}

/// Text as one line that only shows.
pub(crate) fn visible(text: &str) -> String {
    escape(text, |character| character.escape_default().to_string())
}

/// JSON that only shows and means the same. Serialised, it has such characters in strings alone, but for its line breaks;
/// all of them are below U+10000, so one escape says each.
fn visible_json(json: &str) -> String {
    escape(json, |character| match character {
        '\n' => "\n".to_owned(),
        character => format!("\\u{:04x}", u32::from(character)),
    })
}

fn escape(text: &str, escaped: impl Fn(char) -> String) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        if is_active(character) {
            visible.push_str(&escaped(character));
        } else {
            visible.push(character);
        }
    }
    visible
}

/// A path of the host in a text: it says exactly which bytes it stands for.
pub(crate) fn shown(path: &Path) -> String {
    escape_bytes(path.as_os_str().as_bytes())
}

/// So many things, in words.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Bytes in the unit that reads best, in powers of 1000.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            let decimals = usize::from(unit != "B" && value < 99.95);
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

/// By so much clocks differ without a word.
const CLOCK_SLACK_MS: u64 = 10_000;

/// How long ago a moment was, in its largest unit; one that is not past is shown as it is.
pub(crate) fn age(moment: Moment) -> String {
    let now = Moment::now().unix_ms();
    if moment.unix_ms() > now.saturating_add(CLOCK_SLACK_MS) {
        return moment.to_string();
    }
    let seconds = now.saturating_sub(moment.unix_ms()) / 1000;
    let units = [
        (604_800 * 2, 604_800, "weeks"),
        (86_400 * 2, 86_400, "days"),
        (7200, 3600, "hours"),
        (120, 60, "minutes"),
    ];
    match units.iter().find(|(from, _, _)| seconds >= *from) {
        Some((_, unit, name)) => format!("{} {name} ago", seconds / unit),
        None => format!("{} ago", count(seconds, "second", "seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\n\u{1b}[2J\u{9b}1m\u{7f}\u{202e}\u{2028}\\é";

    #[test]
    fn nothing_acts_on_a_terminal() {
        assert_eq!(visible(HOSTILE), "a\\n\\u{1b}[2J\\u{9b}1m\\u{7f}\\u{202e}\\u{2028}\\é");
        assert_eq!(visible(&visible(HOSTILE)), visible(HOSTILE));
    }

    #[test]
    fn json_says_exactly_the_same() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, 1] });
        let text = visible_json(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        assert!(text.chars().all(|character| character == '\n' || !is_active(character)), "{text}");
    }
}
