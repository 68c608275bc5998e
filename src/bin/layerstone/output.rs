//! Printing: tables for people, JSON for programs, complaints on stderr.

use std::error::Error as _;
use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use layerstone::Error;
use serde::Serialize;

/// Where a command's result goes.
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// One line of the result.
    pub(crate) fn line(text: &str) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// A result as JSON.
    pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value)?;
        writeln!(out)
    }

    /// A table; numeric columns, by their index, are aligned to the right.
    pub(crate) fn table(header: &[&str], numeric: &[usize], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header.to_vec());
        for row in rows {
            table.add_row(row.into_iter().map(Cell::new).collect::<Vec<_>>());
        }
        for index in 0..header.len() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if numeric.contains(&index) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        let mut out = io::stdout().lock();
        table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
    }

    /// Something the user should know that is not the result.
    pub(crate) fn note(text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A failure that is not the library's.
    pub(crate) fn complain(text: &str) {
        Self::note(&format!("layerstone: {text}"));
    }

    /// A failure of the library, with what caused it.
    pub(crate) fn explain(error: &Error, json: bool) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        if json {
            let value = serde_json::json!({ "error": error.kind().as_str(), "message": text });
            Self::note(&value.to_string());
        } else {
            Self::complain(&text);
        }
    }
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
