//! Objects that are put aside: readable while something is worked out, and then forgotten.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{ObjectBytes, ObjectKind, ObjectSink, ObjectSource};
use crate::error::Result;
use crate::id::ObjectId;

/// A source, and what was put besides.
pub(crate) struct Scratch<'s, S> {
    source: &'s S,
    put: RefCell<HashMap<ObjectId, ObjectBytes>>,
}

impl<'s, S: ObjectSource> Scratch<'s, S> {
    pub(crate) fn new(source: &'s S) -> Self {
        Self { source, put: RefCell::default() }
    }
}

impl<S: ObjectSource> ObjectSource for Scratch<'_, S> {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        let put = self.put.borrow().get(id).cloned();
        put.map_or_else(|| self.source.get(id), Ok)
    }
}

impl<S: ObjectSource> ObjectSink for &Scratch<'_, S> {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        let id = kind.id_of(bytes);
        self.put.borrow_mut().entry(id).or_insert_with(|| bytes.to_vec().into());
        Ok(id)
    }
}
