//! Any bytes as a tree's root node: entries, or an error.
#![no_main]

use layerstone::Result;
use layerstone::id::ObjectId;
use layerstone::object::{ObjectBytes, ObjectKind, ObjectSource};
use layerstone::tree::{self, Root};

/// Every object has the same bytes.
struct Everywhere<'b>(&'b [u8]);

impl ObjectSource for Everywhere<'_> {
    fn get(&self, _id: &ObjectId) -> Result<ObjectBytes> {
        Ok(self.0.to_vec().into())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let source = Everywhere(bytes);
    let id = ObjectKind::Node.id_of(bytes);
    let Ok(root) = Root::open(&source, id) else { return };
    if let Ok(entries) = tree::iter(&source, &root) {
        entries.take(10_000).for_each(drop);
    }
});
