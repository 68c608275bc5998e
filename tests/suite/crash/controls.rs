//! The harness notices what it is there to notice: each way of breaking the store's promise on purpose makes it fail.

use std::sync::atomic::AtomicU64;

use layerstone::testing::{Omissions, Sabotage};

use super::run::Plan;
use super::states::History;

/// Fails unless a broken store is noticed within a few workloads; says how.
fn is_noticed(what: &str, sabotage: Option<Sabotage>, omissions: Omissions) {
    for seed in 1..7 {
        let plan = Plan { sabotage, steps: 16, ..Plan::new(seed) };
        let (states, fault) = match History::record_with(plan, omissions) {
            // It can't even be used.
            Err(error) => (0, error.to_string()),
            Ok(history) => {
                let (states, failures) = history.explore(&AtomicU64::new(2000));
                let Some(first) = failures.first() else { continue };
                (states, format!("{} of them failed; the first: {first}", failures.len()))
            }
        };
        println!("{what}: noticed with workload {seed} in {states} states: {fault}\n");
        return;
    }
    panic!("{what}: not noticed");
}

#[test]
fn packs_that_are_not_synced_are_noticed() {
    is_noticed("no syncs of packs", None, Omissions { pack_syncs: true, ..Omissions::default() });
}

#[test]
fn folders_that_are_not_synced_are_noticed() {
    for folder in [&[""], &["packs"], &["segments"]] {
        let omissions = Omissions { folder_syncs: folder, ..Omissions::default() };
        is_noticed(&format!("no syncs of the folder {folder:?}"), None, omissions);
    }
}

#[test]
fn rows_that_are_not_published_are_noticed() {
    is_noticed("no rows of the index", Some(Sabotage::LeaveOutIndex), Omissions::default());
}

#[test]
fn frames_that_are_written_after_their_publication_are_noticed() {
    is_noticed("published first", Some(Sabotage::PublishFirst), Omissions::default());
}
