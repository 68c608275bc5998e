//! Objects out of a target's bytes, and objects that a target makes.

use std::collections::HashMap;

use layerstone::Result;
use layerstone::id::ObjectId;
use layerstone::object::{ObjectBytes, ObjectKind, ObjectSink, ObjectSource};

/// Objects in a row, each `key(1) length(2, little-endian) bytes`. One is found by the first byte of its id, so that an
/// object can be mutated without losing those that refer to it; where there is none, it is empty.
pub(crate) struct Objects<'b>(Vec<(u8, &'b [u8])>);

impl<'b> Objects<'b> {
    pub(crate) fn parse(mut bytes: &'b [u8]) -> Self {
        let mut objects = Vec::new();
        while let Some(([key, low, high], rest)) = bytes.split_first_chunk() {
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (object, rest) = rest.split_at(len);
            objects.push((*key, object));
            bytes = rest;
        }
        Self(objects)
    }

    /// The first object and an id that finds it.
    pub(crate) fn first(&self) -> Option<(ObjectId, &'b [u8])> {
        self.0.first().map(|(key, bytes)| (ObjectId::from_bytes([*key; 32]), *bytes))
    }
}

impl ObjectSource for Objects<'_> {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        let found = self.0.iter().find(|(key, _)| *key == id.as_bytes()[0]);
        Ok(found.map(|(_, bytes)| bytes.to_vec()).unwrap_or_default().into())
    }
}

/// Objects by their true ids.
#[derive(Default)]
pub(crate) struct Stored(HashMap<ObjectId, Vec<u8>>);

impl ObjectSink for Stored {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        let id = kind.id_of(bytes);
        self.0.insert(id, bytes.to_vec());
        Ok(id)
    }
}

impl ObjectSource for Stored {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        Ok(self.0[id].clone().into())
    }
}
