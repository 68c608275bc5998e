//! Passing on what a command prints, where it must be known how that ended or which lines are the runtime's own.

use std::io::{Read, Write};

/// What was passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Relayed {
    /// Whether a line of ours can follow: the last line was whole, or there was none.
    pub(super) ends_line: bool,
    /// Lines that were held back.
    pub(super) held: Vec<u8>,
}

/// What is held back.
pub(super) enum GenerationGuard {
    Nothing,
    /// Lines that begin so.
    Lines(&'static [u8]),
    /// Everything until this is so.
    Until(Box<dyn Fn() -> bool + Send>),
}

/// Passes on as it comes what is not held back. A reader that went away ends it.
pub(super) fn relay(mut from: impl Read, to: impl Write, hold: GenerationGuard) -> Relayed {
    let mut relay = Relay { to, hold, state: State::Begin(Vec::new()), held: Vec::new(), last: b'\n' };
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(read) if read > 0 => read,
            _ => break,
        };
        if relay.take(buffer.get(..read).unwrap_or_default()).is_err() {
            break;
        }
    }
    relay.finish()
}

/// Where in a line it is.
enum State {
    /// At its begin, which so far may be that of a line to hold back.
    Begin(Vec<u8>),
    Passing,
    Holding,
}

struct Relay<W> {
    to: W,
    hold: GenerationGuard,
    state: State,
    held: Vec<u8>,
    /// The last byte that was passed on.
    last: u8,
}

impl<W: Write> Relay<W> {
    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let prefix = match &self.hold {
            GenerationGuard::Lines(prefix) => *prefix,
            GenerationGuard::Until(is_so) if !is_so() => {
                self.held.extend_from_slice(bytes);
                return Ok(());
            }
            GenerationGuard::Nothing | GenerationGuard::Until(_) => return self.pass(bytes),
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut line = Vec::new();
            if let State::Begin(begin) = &mut self.state {
                line = std::mem::take(begin);
                line.extend_from_slice(piece);
                if line.len() < prefix.len() && prefix.starts_with(&line) {
                    *begin = line;
                    continue;
                }
                self.state = if line.starts_with(prefix) { State::Holding } else { State::Passing };
            }
            let piece = if line.is_empty() { piece } else { &line };
            match self.state {
                State::Holding => self.held.extend_from_slice(piece),
                _ => self.pass(piece)?,
            }
            if piece.ends_with(b"\n") {
                self.state = State::Begin(Vec::new());
            }
        }
        Ok(())
    }

    fn pass(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.last = bytes.last().copied().unwrap_or(self.last);
        self.to.write_all(bytes)?;
        self.to.flush()
    }

    fn finish(mut self) -> Relayed {
        if let State::Begin(begin) = std::mem::replace(&mut self.state, State::Passing) {
            let _ = self.pass(&begin);
        }
        Relayed { ends_line: self.last == b'\n', held: self.held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has in pieces of some bytes.
    struct Pieces<'b>(&'b [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = self.1.min(self.0.len());
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn whatever_the_pieces_lines_are_passed_on_or_held() {
        let cases = [
            ("", "", "", true),
            ("a\nb", "a\nb", "", false),
            ("bwrap: no\nb\nbwrap x\nbwrap: end", "b\nbwrap x\n", "bwrap: no\nbwrap: end", true),
            ("a bwrap: x\nbwr", "a bwrap: x\nbwr", "", false),
            ("\n\nbwrap: \n", "\n\n", "bwrap: \n", true),
            ("bwrap:\n", "bwrap:\n", "", true),
        ];
        for (input, passed, held, ends_line) in cases {
            for size in 1..=input.len().max(1) {
                let mut out = Vec::new();
                let relayed =
                    relay(Pieces(input.as_bytes(), size), &mut out, GenerationGuard::Lines(b"bwrap: "));
                assert_eq!(out, passed.as_bytes(), "{input:?} by {size}");
                assert_eq!(
                    relayed,
                    Relayed { ends_line, held: held.as_bytes().to_vec() },
                    "{input:?} by {size}"
                );
                let mut out = Vec::new();
                assert!(
                    relay(Pieces(input.as_bytes(), size), &mut out, GenerationGuard::Nothing).held.is_empty()
                );
                assert_eq!(out, input.as_bytes());
                let held = relay(
                    Pieces(input.as_bytes(), size),
                    &mut out,
                    GenerationGuard::Until(Box::new(|| false)),
                )
                .held;
                assert_eq!((held.as_slice(), out.len()), (input.as_bytes(), input.len()));
            }
        }
    }
}
