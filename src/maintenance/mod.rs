//! Care of a whole store, for all projects: collection, verification and repair. Calls of [`Store`](crate::Store) that the store
//! itself does not need, so they stand above it.

mod gc;
mod repair;
mod verify;

pub use gc::{GcOptions, GcReport};
#[cfg(feature = "testing")]
pub(crate) use repair::losses;
pub use repair::{CatalogState, FoundImage, RepairOptions, RepairReport, SalvagedImage};
pub use verify::{DamagedImage, LostPath, VerifyReport};
