//! What a dynamic program names as its loader, which the kernel starts in its place.

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

/// The loader's path, if a program begins so that names one. Compilers put both near the begin.
pub(super) fn loader(begin: &[u8]) -> Option<&[u8]> {
    let layout = match begin.get(..5)? {
        b"\x7fELF\x01" => NARROW,
        b"\x7fELF\x02" => WIDE,
        _ => return None,
    };
    let is_big_endian = *begin.get(5)? == 2;
    let number = |at: usize, len: usize| {
        let mut bytes = begin.get(at..at.checked_add(len)?)?.to_vec();
        if !is_big_endian {
            bytes.reverse();
        }
        bytes.iter().try_fold(0_usize, |number, byte| Some(number.checked_mul(256)? | usize::from(*byte)))
    };
    let (start, len) = (number(layout.headers, layout.word)?, number(layout.header_len, 2)?);
    let count = number(layout.header_count, 2)?;
    let header = |index: usize| start.checked_add(index.checked_mul(len)?);
    let mut headers = (0..count).map_while(header);
    let header = headers.find(|at| number(*at, 4) == Some(INTERPRETER))?;
    let offset = number(header.checked_add(layout.offset)?, layout.word)?;
    let len = number(header.checked_add(layout.len)?, layout.word)?;
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
