//! The names with which GNU tar's incremental dumps (`tar -g`) describe a directory, in a body or a PAX record: each begins with
//! a letter and ends with a zero byte. `N` is a file that was there and did not change: only an earlier dump has it.

/// How much of a name is kept.
const NAME_BYTES_MAX: usize = 255;

/// What of a list was read.
#[derive(Clone, Debug, Default)]
pub(super) struct DumpList {
    /// Files that the dump lacks, and the first one's name.
    lacking: u64,
    example: Vec<u8>,
    /// Whether a name goes on, and whether it is the example.
    is_in_name: bool,
    is_in_example: bool,
}

impl DumpList {
    /// Reads on.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == 0 {
                (self.is_in_name, self.is_in_example) = (false, false);
            } else if !self.is_in_name {
                self.is_in_name = true;
                self.is_in_example = *byte == b'N' && self.lacking == 0;
                self.lacking += u64::from(*byte == b'N');
            } else if self.is_in_example && self.example.len() < NAME_BYTES_MAX {
                self.example.push(*byte);
            }
        }
    }

    /// Returns how many files the dump lacks, and the name of the first.
    pub(super) fn lacking(self) -> Option<(u64, Vec<u8>)> {
        (self.lacking > 0).then_some((self.lacking, self.example))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_in_any_pieces() {
        let list = b"Ya\0Nbig\0DN\0Nc\0\0";
        for cut in 0..list.len() {
            let mut read = DumpList::default();
            read.take(&list[..cut]);
            read.take(&list[cut..]);
            assert_eq!(read.lacking(), Some((2, b"big".to_vec())), "{cut}");
        }
        assert_eq!(DumpList::default().lacking(), None);
    }
}
