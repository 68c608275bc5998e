//! The tree: an ordered map from path to entry, copy-on-write and canonical.

pub(crate) mod entry;
