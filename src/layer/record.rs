//! The record of one step: what an image's history is made of.

use bincode::{Decode, Encode};

use crate::error::{Error, Result, Subject};
use crate::format::record::{self, MAX_RECORD_BYTES};
use crate::id::ObjectId;
use crate::object::{ObjectKind, ObjectSink, ObjectSource};

/// Steps that a history is followed for.
pub const MAX_HISTORY: usize = 1 << 20;

/// One step of an image's history. Shared by all images that have it: a chain of n commits has n records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LayerRecord {
    /// The step before, none for an import.
    pub previous: Option<ObjectId>,
    /// The tree after this step.
    pub root: ObjectId,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// What made it: `import directory`, `import tar`, `commit`.
    pub created_by: String,
    /// The user's words.
    pub comment: String,
    /// Paths that were not there before.
    pub added: u64,
    /// Paths whose entry changed.
    pub modified: u64,
    /// Paths that are gone.
    pub removed: u64,
    /// Bytes of file content in the entries that were added or modified.
    pub changed_bytes: u64,
    /// SHA-256 of the uncompressed tar that the step came as.
    pub diff_id: Option<[u8; 32]>,
}

impl LayerRecord {
    /// Stores the record. Fails with *invalid* if its texts are too long to be read again.
    pub fn write(&self, sink: &mut impl ObjectSink) -> Result<ObjectId> {
        let bytes = record::encode_object(self).ok().filter(|bytes| bytes.len() <= MAX_RECORD_BYTES);
        let bytes = bytes.ok_or_else(|| {
            let message = format!("makes a layer record of more than {MAX_RECORD_BYTES} bytes; shorten it");
            Error::invalid(Subject::Argument("comment"), message)
        })?;
        sink.put(ObjectKind::Layer, &bytes)
    }

    /// Reads a record.
    pub fn read(source: &impl ObjectSource, id: ObjectId) -> Result<Self> {
        record::decode_object(&source.get(&id)?).map_err(|error| {
            Error::corrupt(Subject::Object(id), format!("as a layer record {error}")).with_source(error)
        })
    }
}

/// The steps that led to a layer, newest first.
pub fn history<S: ObjectSource>(source: S, layer: ObjectId) -> History<S> {
    History { source, next: Some(layer), left: MAX_HISTORY }
}

/// Iterator of [`history`]. It ends after an error, and with one after [`MAX_HISTORY`] steps: a source that
/// does not check ids could lead in a circle.
#[derive(Debug)]
pub struct History<S> {
    source: S,
    next: Option<ObjectId>,
    pub(super) left: usize,
}

impl<S: ObjectSource> Iterator for History<S> {
    type Item = Result<(ObjectId, LayerRecord)>;

    fn next(&mut self) -> Option<Self::Item> {
        let id = self.next.take()?;
        if self.left == 0 {
            let message = format!("has more than {MAX_HISTORY} layers after it");
            return Some(Err(Error::corrupt(Subject::Object(id), message)));
        }
        self.left -= 1;
        let record = LayerRecord::read(&self.source, id);
        self.next = record.as_ref().ok().and_then(|record| record.previous);
        Some(record.map(|record| (id, record)))
    }
}
