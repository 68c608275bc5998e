//! Which process this is, and whether another is still there.

use std::os::unix::fs::MetadataExt;

use crate::catalog::record::HolderRecord;

/// The kernel's id of this boot.
pub(crate) fn boot() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}

/// The inode of the pid namespace that all others are in.
const OUTERMOST: u64 = 0xEFFF_FFFC;

/// Whether this process sees all the processes that one of the same namespace as the holder can have started.
pub(crate) fn sees_all_of(holder: &HolderRecord) -> bool {
    let here = namespace();
    holder.boot != boot() || holder.namespace == here || here == OUTERMOST
}

/// When the process started, in clock ticks since boot; none if there is no such process.
fn started_ticks(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the start is field 22.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// This process.
pub(crate) fn this_process() -> HolderRecord {
    let process = std::process::id();
    HolderRecord {
        boot: boot(),
        process,
        namespace: namespace(),
        started_ticks: started_ticks(process).unwrap_or(0),
    }
}

/// Whether the holder is certainly gone: another boot, or its number is free or taken by a later process. One in
/// another pid namespace can't be looked up: it counts as alive until the next boot, or, seen from outside of all, as long as
/// that namespace has any process.
pub(crate) fn is_dead(holder: &HolderRecord) -> bool {
    if holder.boot != boot() {
        return true;
    }
    match namespace() {
        here if holder.namespace == here => started_ticks(holder.process) != Some(holder.started_ticks),
        OUTERMOST => !has_processes(holder.namespace),
        _ => false,
    }
}

/// Whether a pid namespace that is not the outermost has a process, seen from outside of all. One that is in some namespace
/// and can't be looked at may be in any.
fn has_processes(namespace: u64) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        // The numbers that it has, one for each namespace that it is in.
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        if numbers.is_none_or(|numbers| numbers.split_ascii_whitespace().count() < 2) {
            return false;
        }
        match std::fs::metadata(process.path().join("ns/pid")) {
            Ok(found) => found.ino() == namespace,
            Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_and_the_dead() {
        let own = this_process();
        assert!(!is_dead(&own));
        assert!(is_dead(&HolderRecord { started_ticks: own.started_ticks + 1, ..own.clone() }));
        assert!(is_dead(&HolderRecord { boot: "another".into(), ..own.clone() }));
        // The outermost sees that nobody is there.
        let elsewhere = HolderRecord { namespace: 1, started_ticks: 0, ..own };
        let sees_all = namespace() == OUTERMOST && rustix::process::geteuid().is_root();
        assert_eq!(is_dead(&elsewhere), sees_all);
        assert!(!is_dead(&HolderRecord { namespace: namespace(), ..this_process() }));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = child.id();
        child.wait().unwrap();
        assert!(is_dead(&HolderRecord { process, started_ticks: 1, ..this_process() }));
    }
}
