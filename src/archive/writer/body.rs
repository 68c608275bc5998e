//! The body being written: data as it comes, and zeros for the holes that the map leaves out.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::ops::Range;

use super::super::BLOCK_BYTES;
use super::{length, write_error};
use crate::error::{Error, Result, Subject};
use crate::path::TreePath;

/// What is still to be written of a member's body.
#[derive(Default)]
pub(super) struct Body {
    path: TreePath,
    parts: VecDeque<Part>,
    /// Zeros after the last part.
    tail: u64,
}

/// A run of data, and the zeros stored before it.
struct Part {
    zeros: u64,
    data: u64,
}

impl Body {
    /// A body whose data is in the ranges of `data`, of which the archive holds the `pieces`: all data, and some
    /// of the holes between, as zeros.
    pub(super) fn new(path: TreePath, data: &[Range<u64>], pieces: &[Range<u64>]) -> Self {
        let mut pieces = pieces.iter().peekable();
        let mut end = 0;
        let mut stored = 0;
        // Zeros stored between the data before and the data at `start`.
        let mut zeros_before = |start: u64, end: u64| {
            let mut zeros = 0_u64;
            while let Some(piece) = pieces.peek() {
                zeros += piece.end.min(start).saturating_sub(piece.start.max(end));
                if piece.end > start {
                    break;
                }
                pieces.next();
            }
            stored += zeros;
            zeros
        };
        let mut parts = VecDeque::with_capacity(data.len());
        for range in data {
            parts.push_back(Part { zeros: zeros_before(range.start, end), data: range.end - range.start });
            end = range.end;
        }
        let mut tail = zeros_before(u64::MAX, end);
        stored += parts.iter().map(|part| part.data).sum::<u64>();
        tail += stored.next_multiple_of(BLOCK_BYTES) - stored;
        Self { path, parts, tail }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8], out: &mut impl Write) -> Result<()> {
        while !bytes.is_empty() {
            let Some(part) = self.parts.front_mut() else {
                return Err(Error::invalid(
                    Subject::Path(self.path.clone()),
                    "was given more data than it has",
                ));
            };
            zeros(std::mem::take(&mut part.zeros), out)?;
            let len = bytes.len().min(usize::try_from(part.data).unwrap_or(usize::MAX));
            let (now, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
            out.write_all(now).map_err(write_error)?;
            part.data -= length(now.len());
            if part.data == 0 {
                self.parts.pop_front();
            }
            bytes = rest;
        }
        Ok(())
    }

    pub(super) fn finish(self, out: &mut impl Write) -> Result<()> {
        if !self.parts.is_empty() {
            let missing: u64 = self.parts.iter().map(|part| part.data).sum();
            let message = format!("was given too little data: {missing} bytes are missing");
            return Err(Error::invalid(Subject::Path(self.path), message));
        }
        zeros(self.tail, out)
    }
}

fn zeros(len: u64, out: &mut impl Write) -> Result<()> {
    std::io::copy(&mut std::io::repeat(0).take(len), out).map(drop).map_err(write_error)
}
