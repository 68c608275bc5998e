//! Objects in memory, for tests: counts what is read and what is newly stored.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::{ObjectBytes, ObjectKind, ObjectSink, ObjectSource};
use crate::error::{Error, Result, Subject};
use crate::id::ObjectId;

/// A map of objects; `&MemoryObjects` is both source and sink.
#[derive(Default)]
pub(crate) struct MemoryObjects {
    objects: RefCell<HashMap<ObjectId, ObjectBytes>>,
    reads: Cell<usize>,
    puts: Cell<usize>,
}

impl MemoryObjects {
    /// Reads and puts since the last call. A put of what is there counts: the caller should have known.
    pub(crate) fn take_counts(&self) -> (usize, usize) {
        (self.reads.take(), self.puts.take())
    }

    /// Puts `bytes` in the place of an object, as damage would.
    pub(crate) fn replace(&self, id: ObjectId, bytes: Vec<u8>) {
        self.objects.borrow_mut().insert(id, bytes.into());
    }

    /// Loses an object.
    pub(crate) fn lose(&self, id: &ObjectId) {
        self.objects.borrow_mut().remove(id);
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.objects.borrow().len()
    }
}

impl ObjectSource for MemoryObjects {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        self.reads.set(self.reads.get() + 1);
        let found = self.objects.borrow().get(id).cloned();
        found.ok_or_else(|| Error::corrupt(Subject::Object(*id), "is missing"))
    }
}

impl ObjectSink for &MemoryObjects {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        self.puts.set(self.puts.get() + 1);
        let id = kind.id_of(bytes);
        self.objects.borrow_mut().insert(id, bytes.to_vec().into());
        Ok(id)
    }
}
