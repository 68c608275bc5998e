//! Layers: the steps between trees.

mod record;

pub use record::{History, LayerRecord, history};
