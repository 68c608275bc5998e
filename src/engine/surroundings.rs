//! What a store learns of the world besides its files: the time, chance, and which process on which boot it is.
//!
//! A store on a simulated machine learns all of it from one seed, so that the same seed gives the same operations.

use crate::catalog::record::HolderRecord;
use crate::id::random_uuid;
use crate::time::Moment;

#[cfg(feature = "testing")]
use super::machine::SimulatedMachine;
use super::process;

/// The machine that a store runs on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// None for the real one.
    #[cfg(feature = "testing")]
    pub(crate) simulated: Option<std::sync::Arc<SimulatedMachine>>,
}

impl Surroundings {
    /// The moment now.
    pub(crate) fn now(&self) -> Moment {
        #[cfg(feature = "testing")]
        if let Some(machine) = &self.simulated {
            return machine.now();
        }
        Moment::now()
    }

    /// 62 random bits, marked as a UUID's second half.
    pub(crate) fn random_half(&self) -> u64 {
        #[cfg(feature = "testing")]
        if let Some(machine) = &self.simulated {
            return machine.random() >> 2 | 1 << 63;
        }
        random_uuid().as_u64_pair().1
    }

    /// This process.
    pub(crate) fn this_process(&self) -> HolderRecord {
        #[cfg(feature = "testing")]
        if let Some(machine) = &self.simulated {
            return machine.process();
        }
        process::this_process()
    }

    /// Whether the holder is certainly gone.
    pub(crate) fn is_dead(&self, holder: &HolderRecord) -> bool {
        #[cfg(feature = "testing")]
        if let Some(machine) = &self.simulated {
            return machine.is_dead(holder);
        }
        process::is_dead(holder)
    }
}
