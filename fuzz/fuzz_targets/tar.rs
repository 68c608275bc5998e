//! Any bytes as an archive: members and bodies, or an error.
#![no_main]

use layerstone::archive::{Assembly, Limits, Piece, Reader};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { stream_bytes_max: 16 << 20, logical_bytes_max: 16 << 20, ..Limits::default() };
    let Ok(mut reader) = Reader::new(bytes, limits.clone()) else { return };
    let mut assembly = Assembly::new(limits);
    let mut buffer = [0; 4096];
    while let Ok(Some(member)) = reader.next() {
        while let Ok(Piece::Data(_) | Piece::Hole(_)) = reader.next_piece(&mut buffer) {}
        if assembly.add(member).is_err() {
            return;
        }
    }
    if let Ok(assembled) = assembly.finish() {
        let paths: Vec<_> = assembled.map(|placed| placed.path().clone()).collect();
        assert!(paths.is_sorted(), "paths ascend");
    }
});
