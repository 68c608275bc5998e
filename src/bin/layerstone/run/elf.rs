//! What the head of a program says: whether this machine executes it, and what a dynamic one names as its loader, which the
//! kernel starts in its place.

pub(super) const MAGIC: &[u8] = b"\x7fELF";

/// The machines whose programs a kernel for this one executes, if that is known: its own and its predecessor.
const MACHINES: Option<[usize; 2]> = if cfg!(target_arch = "x86_64") {
    Some([62, 3])
} else if cfg!(target_arch = "aarch64") {
    Some([183, 40])
} else {
    None
};
/// Programs of a fixed address and of any.
const KINDS: [usize; 2] = [2, 3];
const KIND: usize = 16;
const MACHINE: usize = 18;

/// The kind of a program header that names the loader.
const INTERPRETER: usize = 3;

/// Where a program has what is looked for. Its program headers have sizes of their own.
struct Layout {
    headers: usize,
    header_len: usize,
    header_count: usize,
    /// Within a program header.
    offset: usize,
    len: usize,
    /// Bytes of an address.
    word: usize,
}

const NARROW: Layout = Layout { headers: 28, header_len: 42, header_count: 44, offset: 4, len: 16, word: 4 };
const WIDE: Layout = Layout { headers: 32, header_len: 54, header_count: 56, offset: 8, len: 32, word: 8 };

/// The head of a program.
struct Head<'b> {
    begin: &'b [u8],
    layout: Layout,
    is_big_endian: bool,
}

impl<'b> Head<'b> {
    fn new(begin: &'b [u8]) -> Option<Self> {
        let layout = match begin.get(..5)? {
            b"\x7fELF\x01" => NARROW,
            b"\x7fELF\x02" => WIDE,
            _ => return None,
        };
        Some(Self { begin, layout, is_big_endian: *begin.get(5)? == 2 })
    }

    fn number(&self, at: usize, len: usize) -> Option<usize> {
        let mut bytes = self.begin.get(at..at.checked_add(len)?)?.to_vec();
        if !self.is_big_endian {
            bytes.reverse();
        }
        bytes.iter().try_fold(0_usize, |number, byte| Some(number.checked_mul(256)? | usize::from(*byte)))
    }

    /// Returns where the program headers begin, the length of one and their number.
    fn headers(&self) -> Option<(usize, usize, usize)> {
        let layout = &self.layout;
        let (start, len) = (self.number(layout.headers, layout.word)?, self.number(layout.header_len, 2)?);
        Some((start, len, self.number(layout.header_count, 2)?))
    }
}

/// Whether the kernel takes what begins so, and has so many bytes, for a program.
pub(super) fn is_native(begin: &[u8], size: u64) -> bool {
    let is_so = || {
        let head = Head::new(begin)?;
        let (start, len, count) = head.headers()?;
        let end = start.checked_add(len.checked_mul(count)?)?;
        let is_kind = KINDS.contains(&head.number(KIND, 2)?);
        let machine = head.number(MACHINE, 2)?;
        let is_machine = MACHINES.is_none_or(|machines| machines.contains(&machine));
        Some(is_kind && is_machine && count > 0 && u64::try_from(end).ok()? <= size)
    };
    is_so().unwrap_or(false)
}

/// The loader's path, if a program begins so that names one. Compilers put both near the begin.
pub(super) fn loader(begin: &[u8]) -> Option<&[u8]> {
    let head = Head::new(begin)?;
    let (start, len, count) = head.headers()?;
    let header = |index: usize| start.checked_add(index.checked_mul(len)?);
    let mut headers = (0..count).map_while(header);
    let header = headers.find(|at| head.number(*at, 4) == Some(INTERPRETER))?;
    let offset = head.number(header.checked_add(head.layout.offset)?, head.layout.word)?;
    let len = head.number(header.checked_add(head.layout.len)?, head.layout.word)?;
    let path = begin.get(offset..offset.checked_add(len)?)?;
    path.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of one header, which names a loader behind it.
    fn program(class: u8, order: u8, path: &[u8]) -> Vec<u8> {
        let layout = if class == 1 { NARROW } else { WIDE };
        let mut program = vec![0; 256];
        program[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
        let mut put = |at: usize, len: usize, number: usize| {
            let bytes = number.to_be_bytes();
            program[at..at + len].copy_from_slice(&bytes[bytes.len() - len..]);
            if order == 1 {
                program[at..at + len].reverse();
            }
        };
        put(layout.headers, layout.word, 100);
        put(layout.header_len, 2, 56);
        put(layout.header_count, 2, 1);
        put(100, 4, INTERPRETER);
        put(100 + layout.offset, layout.word, 200);
        put(100 + layout.len, layout.word, path.len() + 1);
        program[200..200 + path.len()].copy_from_slice(path);
        program
    }

    #[test]
    fn a_program_of_this_machine_is_told_from_what_is_none() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let size = own.len() as u64;
        assert!(is_native(&own[..4096], size));
        for len in 0..58 {
            assert!(!is_native(&own[..len], size), "{len}");
        }
        assert!(!is_native(&own[..4096], 64), "cut short");
        for (at, byte) in [(0, 0), (4, 3), (KIND, 1), (MACHINE, 255), (MACHINE + 1, 1)] {
            let mut other = own[..4096].to_vec();
            other[at] = byte;
            assert!(!is_native(&other, size), "{at}");
        }
        let mut empty = own[..4096].to_vec();
        empty[WIDE.header_count..][..2].fill(0);
        assert!(!is_native(&empty, size));
    }

    #[test]
    fn a_loader_is_found_in_programs_of_all_kinds_and_nothing_in_what_is_cut_short() {
        for (class, order) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let mut program = program(class, order, b"/lib/ld.so");
            assert_eq!(loader(&program), Some(&b"/lib/ld.so"[..]), "{class} {order}");
            for len in 0..211 {
                assert_eq!(loader(&program[..len]), None, "{class} {order} {len}");
            }
            program[24..60].fill(0xff);
            assert_eq!(loader(&program), None);
        }
        assert_eq!(loader(b"#!/bin/sh"), None);
    }
}
