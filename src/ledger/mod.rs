//! What the catalog's rows mean to each other, over one transaction: which import an image is the same as, what a collection
//! must be told, and what this machine remembers of directories.

pub(crate) mod directories;
pub(crate) mod identity;
pub(crate) mod needed;
