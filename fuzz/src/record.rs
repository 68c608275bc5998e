//! The values that have no structure of objects around them; the first byte says which. What is read and written again
//! reads as the same, and where a value has one form it is the same bytes.

use layerstone::layer::LayerRecord;
use layerstone::object::ObjectSource;
use layerstone::testing::{reencode_catalog_record, reencode_chunk_list};
use layerstone::tree::{Xattrs, links};

use super::objects::Stored;

pub fn check(bytes: &[u8]) -> bool {
    let Some((choice, bytes)) = bytes.split_first() else { return false };
    match choice {
        0 => canonical(bytes, |bytes| Xattrs::decode(bytes).ok().map(|xattrs| xattrs.encode())),
        1 => canonical(bytes, |bytes| links::decode(bytes).ok().map(|paths| links::encode(&paths))),
        2 => canonical(bytes, |bytes| reencode_chunk_list(bytes).ok()),
        3 => stable(bytes, reencode_layer),
        choice => stable(bytes, |bytes| reencode_catalog_record(choice - 4, bytes).ok()),
    }
}

fn canonical(bytes: &[u8], reencode: impl Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
    let Some(again) = reencode(bytes) else { return false };
    assert_eq!(again, bytes, "a value has one form");
    true
}

/// Records have numbers in more than one form; writing chooses the shortest.
fn stable(bytes: &[u8], reencode: impl Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
    let Some(once) = reencode(bytes) else { return false };
    assert!(once.len() <= bytes.len());
    assert_eq!(reencode(&once).as_ref(), Some(&once));
    true
}

fn reencode_layer(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stored = Stored::default();
    let id = layerstone::object::ObjectSink::put(&mut stored, layerstone::object::ObjectKind::Layer, bytes)
        .ok()?;
    let record = LayerRecord::read(&stored, id).ok()?;
    let written = record.write(&mut stored).expect("a record that was read can be written");
    assert_eq!(LayerRecord::read(&stored, written).ok(), Some(record));
    Some(stored.get(&written).ok()?.to_vec())
}
